"""The gradients or momenta that a bucket descends on a device: by operators on lists, or in one Triton pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.linalg.backend import descend_by_kernels_, resolve
from modular_manifolds.linalg.matrices import MATRIX
from modular_manifolds.optim import foreach
from modular_manifolds.optim.bucket import Bucket
from modular_manifolds.optim.damping import signal_fraction
from modular_manifolds.optim.weight import Weight

Group = Mapping[str, Any]
States = Mapping[Tensor, dict[str, Any]]
Decays = Mapping[tuple[float, torch.dtype], Tensor]
"""The factors by which momenta have decayed in this step, by μ and dtype."""


@dataclass(frozen=True)
class Descent:
    """The input of the solver for one bucket.

    Args:
        stack: gradients or their averages, in the stack of the bucket.
        moving: whether each unit has a nonzero gradient, in a shape that broadcasts over the stack.
        signals: the signal fraction of each unit, as factors; None without noise damping.
    """

    stack: Tensor
    moving: Tensor
    signals: Tensor | None = None


def can_use_kernels(bucket: Bucket, group: Group, state: States) -> bool:
    """Whether the kernels can read and write the weights of the bucket; the answer needs no numbers of the device."""
    couples_rows = bucket.geometry.coupled_dims in (MATRIX, (-1,))
    if bucket.as_vectors or not couples_rows or group["noise_damping"]:
        return False
    if any(each.piece is not None for each in bucket.weights):
        # The kernels write whole parameters only.
        return False
    gradients = {gradient_of(each).dtype for each in bucket.weights}
    if gradients != {bucket.dtype} or resolve("auto", bucket.parameters[0]) != "triton":
        return False
    if not all(each.is_contiguous() for each in bucket.parameters):
        return False
    momenta = state_entries(bucket, state, "momentum")
    if not momenta:
        return True
    # With momentum 0 a weight may have no momentum entry, and existing entries must equal the gradients.
    complete = len(momenta) == len(bucket.weights) and group["momentum"] > 0
    return complete and all(each.is_contiguous() for each in momenta)


def descend_by_kernels(
    bucket: Bucket, group: Group, state: States, ok: Tensor, reached: Tensor
) -> Descent:
    """Add the gradients to the momenta, and stack the result, by the kernels.

    Args:
        ok: whether the step is taken; if not, gradients count as zero and momenta stay.
        reached: whether each weight has a nonzero gradient.
    """
    momenta = state_entries(bucket, state, "momentum")
    stack, rows = descend_by_kernels_(
        [gradient_of(each) for each in bucket.weights],
        momenta,
        ok,
        group["momentum"] if momenta else 0.0,
        nesterov=group["nesterov"],
        turned=bucket.turned,
    )
    if bucket.shares.dim() == 2:
        stack, rows = stack.squeeze(0), rows.squeeze(0)
    if bucket.geometry.coupled_dims != MATRIX:
        return Descent(stack, rows.unsqueeze(-1) != 0)
    if len(bucket.weights[0].matrix_shape) == 2:
        return Descent(stack, reached.reshape(bucket.shares.shape))
    return Descent(stack, rows.amax(dim=-1).reshape(bucket.shares.shape) != 0)


def descend_by_operators(
    bucket: Bucket, group: Group, state: States, ok: Tensor, reached: Tensor, decays: Decays
) -> Descent:
    """Add the gradients to the momenta, which have decayed already, and stack the result, by torch's operators."""
    # Zero if the step is cancelled, so that no NaN spreads.
    gradient = bucket.stack([gradient_of(each) for each in bucket.weights])
    gradient = torch.where(ok, gradient.to(bucket.full), 0.0)
    moving = _moving_units(bucket, gradient, reached)
    stack = _averaged(bucket, group, state, gradient)
    if not group["noise_damping"]:
        return Descent(stack, moving)
    decay = decays[group["momentum"], bucket.full]
    return Descent(stack, moving, _signals(bucket, group, state, gradient, moving, decay))


def _moving_units(bucket: Bucket, gradient: Tensor, reached: Tensor) -> Tensor:
    """Whether each unit has a nonzero gradient, in a shape that broadcasts over the stack.

    A unit without a gradient must not move, however small its momentum has become: see `on_host.averaged_gradient`.
    """
    dims = bucket.geometry.coupled_dims
    if dims == MATRIX and len(bucket.weights[0].matrix_shape) == 2:
        return reached.reshape(bucket.shares.shape)
    if not dims:
        return gradient != 0
    return torch.linalg.vector_norm(gradient, math.inf, dim=dims, keepdim=True) != 0


def _averaged(bucket: Bucket, group: Group, state: States, gradient: Tensor) -> Tensor:
    """Add the gradient to the momenta, which have decayed already; return the solver's input."""
    momenta, mu = state_entries(bucket, state, "momentum"), group["momentum"]
    if not momenta:
        return gradient
    values = bucket.unstack(gradient)
    if mu == 0:
        # With momentum 0 the existing entries become the gradients. Other weights have no entry.
        with_momentum = [
            i for i, each in enumerate(bucket.weights) if "momentum" in state[each.parameter]
        ]
        values = [values[i] for i in with_momentum]
    foreach.add_(momenta, values, alpha=1 - mu)
    if mu == 0:
        return gradient
    buffer = bucket.stack(momenta)
    return torch.lerp(gradient, buffer, mu) if group["nesterov"] else buffer


def _signals(
    bucket: Bucket, group: Group, state: States, gradient: Tensor, moving: Tensor, decay: Tensor
) -> Tensor:
    """The signal fraction of each unit, as factors for the stack."""
    dims, mu = bucket.geometry.coupled_dims, group["momentum"]
    parts = [
        signal_fraction(
            weight.entries(state[weight.parameter]), value, reached, dims, momentum=mu, decay=decay
        )
        for weight, value, reached in zip(
            bucket.weights, bucket.unstack(gradient), bucket.unstack(moving), strict=True
        )
    ]
    return bucket.stack(parts).to(bucket.full)


def state_entries(bucket: Bucket, state: States, name: str) -> list[Tensor]:
    """One entry of the state, from the weights that have it."""
    entries = [each.entries(state[each.parameter]) for each in bucket.weights]
    return [each[name] for each in entries if name in each]


def gradient_of(weight: Weight) -> Tensor:
    """The gradient of a weight that has one, in its logical shape."""
    assert weight.parameter.grad is not None
    return weight.read(weight.parameter.grad)
