"""The state of one weight: momentum, the copy in full precision, the dual variable, averages. It exists from construction on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import at_least_float32
from modular_manifolds.optim.damping import AVERAGES, unit_shape
from modular_manifolds.optim.weight import PieceState, Weight, full_dtype


def prepare_(
    state: dict[str, Any],
    weight: Weight,
    *,
    momentum: float,
    damped: bool,
    dual_shape: tuple[int, ...] | None,
) -> None:
    """Make the entries that are missing, and let the others follow the weight to another dtype or device.

    `momentum`, `dual` and the averages begin at zero, `master` at the weight. A dual of zeros has not come from a solve.
    An entry that exists in the right place is left alone: captured graphs hold its address.
    """
    parameter = weight.parameter
    dtype = full_dtype(parameter)
    wanted: dict[str, torch.dtype] = {}
    held = weight.held(state)
    if momentum > 0 or "momentum" in held:
        wanted["momentum"] = dtype
    if dtype is not parameter.dtype:
        wanted["master"] = dtype
    if dual_shape is not None:
        wanted["dual"] = dtype
    if damped or AVERAGES[0] in held:
        wanted.update(dict.fromkeys(AVERAGES, torch.float64))
    for name in ("master", "dual"):
        if name in held and name not in wanted:
            del state[weight.key(name)]
    for name, kind in wanted.items():
        key = weight.key(name)
        entry = state.get(key)
        if entry is None:
            state[key] = _begun(name, weight, kind, dual_shape)
        elif entry.dtype is not kind or entry.device != parameter.device:
            state[key] = entry.to(parameter.device, kind)


def _begun(
    name: str, weight: Weight, dtype: torch.dtype, dual_shape: tuple[int, ...] | None
) -> Tensor:
    parameter = weight.parameter
    # A whole parameter keeps its layout: the average is taken over memory in the weight's order. Pieces must be views.
    layout = torch.preserve_format if weight.piece is None else torch.contiguous_format
    if name == "master":
        return parameter.detach().to(dtype, memory_format=layout)
    if name == "momentum":
        return torch.zeros_like(parameter, dtype=dtype, requires_grad=False, memory_format=layout)
    if name == "dual":
        assert dual_shape is not None
        return parameter.new_zeros(dual_shape, dtype=dtype)
    return parameter.new_zeros(unit_shape(weight.shape, weight.geometry.coupled_dims), dtype=dtype)


def has_dual(state: dict[str, Any] | PieceState) -> bool:
    """Whether an earlier solve left a dual variable to start from."""
    return "dual" in state and bool(state["dual"].any())


def in_full(weight: Tensor, master: Tensor | None) -> Tensor:
    """The weight in at least float32: its master copy, except for entries that somebody has changed since."""
    full = at_least_float32(weight.detach())
    return full if master is None else torch.where(master.to(weight.dtype) == weight, master, full)


def at_rest(point: Tensor, landed: Tensor, reached: Tensor) -> Tensor:
    """`landed`, but a unit that is not reached keeps its place, bit for bit, if only rounding has moved it.

    A unit that was off its manifold has moved further, and keeps the place at which it landed.
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
