"""The state of one weight: momentum, the copy in full precision, the dual variable. All of it exists from construction on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import at_least_float32
from modular_manifolds.optim.damping import signal
from modular_manifolds.optim.gradients import Gradient


def full_dtype(weight: Tensor) -> torch.dtype:
    """The dtype that a weight is stepped in: its own, and float32 if that is coarser."""
    return torch.promote_types(weight.dtype, torch.float32)


def prepare_(
    state: dict[str, Any],
    weight: Tensor,
    *,
    momentum: float,
    dual_shape: tuple[int, ...] | None,
) -> None:
    """Make what is missing, and let what is there follow the weight to another dtype or device.

    `momentum` and `dual` begin at zero, `master` at the weight. A dual of zeros has not come from a solve.
    """
    dtype = full_dtype(weight)
    if "momentum" in state:
        state["momentum"] = state["momentum"].to(weight.device, dtype)
    elif momentum > 0:
        # Preserves the layout: the average is taken over memory in the weight's order.
        state["momentum"] = torch.zeros_like(weight, dtype=dtype, requires_grad=False)
    if dtype is weight.dtype:
        state.pop("master", None)
    elif "master" in state:
        state["master"] = state["master"].to(weight.device, dtype)
    else:
        state["master"] = weight.detach().to(dtype)
    if dual_shape is None:
        state.pop("dual", None)
    elif "dual" in state:
        state["dual"] = state["dual"].to(weight.device, dtype)
    else:
        state["dual"] = weight.new_zeros(dual_shape, dtype=dtype)


def has_dual(state: dict[str, Any]) -> bool:
    """Whether an earlier solve left a dual variable to start from."""
    return "dual" in state and bool(state["dual"].any())


def in_full(state: dict[str, Any], weight: Tensor) -> Tensor:
    """The weight in at least float32: its master copy, except for entries that somebody has changed since."""
    full, master = at_least_float32(weight.detach()), state.get("master")
    return full if master is None else torch.where(master.to(weight.dtype) == weight, master, full)


def descended(state: dict[str, Any], gradient: Gradient) -> tuple[Tensor, Tensor | None]:
    """Update the averages. Give back what the solver descends, which is zero at units that are not reached, and their signal.

    The signal is the part of the step's length that each unit takes, None for the whole of it.

    The momentum of every unit is the average over steps, and decays in a step that does not reach the unit. Such a
    unit must not move: a direction does not depend on how small the momentum has become, so a unit that was reached
    once would go on at full length in that one direction. When a unit is reached again after a long time, its new
    gradient outweighs the old ones, which were taken where the network no longer is.
    """
    mu, nesterov = gradient.group["momentum"], gradient.group["nesterov"]
    buffer: Tensor | None = state.get("momentum")
    value, reached = gradient.value, gradient.reached
    if buffer is None:
        return value, None
    value = value.to(buffer.dtype)
    # Not lerp, whose difference of two large gradients of opposite sign overflows.
    buffer.mul_(mu).add_(value, alpha=1 - mu)
    if reached is not None:
        # The smallest denormal number times 0.9 rounds to itself. It would never decay, and processors are slow with it.
        normal = torch.hardshrink(buffer, torch.finfo(buffer.dtype).tiny)
        buffer.copy_(torch.where(reached, buffer, normal))
    length = signal(state, gradient) if gradient.group["noise_damping"] else None
    ahead = value.mul(1 - mu).add_(buffer, alpha=mu) if nesterov else buffer
    return (ahead if reached is None else torch.where(reached, ahead, 0.0)), length


def at_rest(point: Tensor, landed: Tensor, reached: Tensor) -> Tensor:
    """`landed`, with units that are not reached where they were, bit for bit, if only rounding has moved them.

    A unit that was off its manifold has moved further, and stays where it landed.
    """
    within_unit = tuple(d for d in range(reached.dim()) if reached.shape[d] == 1)
    moved, size = (landed - point).abs(), landed.abs()
    if within_unit:
        moved = moved.amax(dim=within_unit, keepdim=True)
        size = size.amax(dim=within_unit, keepdim=True)
    only_rounding = moved <= RETRACTION_ROUNDING * torch.finfo(landed.dtype).eps * size
    return torch.where(only_rounding & ~reached, point, landed)


RETRACTION_ROUNDING = 64
"""How far, in units of eps times the largest entry, a retraction of a zero step may move a point of the manifold."""
