"""Noise damping: a unit whose gradients are mostly noise takes a shorter step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import divide_safely
from modular_manifolds.optim.weight import PieceState

AVERAGES: Final = ("power", "seen")
"""The averages in a weight's state: `power` of ‖G‖², and `seen` of whether the unit's gradient is nonzero."""


def signal_fraction(
    state: dict[str, Any] | PieceState,
    value: Tensor,
    reached: Tensor | None,
    coupled_dims: tuple[int, ...],
    *,
    momentum: float,
    decay: Tensor | float,
) -> Tensor:
    """The fraction of each unit's gradients that is signal, between 0 and 1. It updates the averages in the state.

    `r = ‖B‖/√(V S)`, in the shape of `power`, with `B ← μB + (1 − μ)G` the momentum after the step,
    `V ← μV + (1 − μ)‖G‖²` and `S ← μS + (1 − μ)[G ≠ 0]`. By Cauchy–Schwarz r is at most 1. It is 1 if all gradients agree,
    and after the first gradient. It is near `√((1 − μ)/(1 + μ))` if gradients are independent noise.

    Args:
        state: the weight's state, with the momentum after this step.
        value: the gradient G.
        reached: whether G is nonzero in each unit; None if it is nonzero in all.
        coupled_dims: the dimensions of a unit.
        momentum: μ.
        decay: μ, or 1 if the step is cancelled and G is zero.
    """
    dims = unit_dims(value.dim(), coupled_dims)
    sizes = _length(value, dims)
    reached = torch.ones_like(sizes) if reached is None else reached
    state["power"].mul_(decay).add_(sizes.square(), alpha=1 - momentum)
    state["seen"].mul_(decay).add_(reached.to(sizes.dtype), alpha=1 - momentum)
    largest_length = (state["power"] * state["seen"]).sqrt()
    return divide_safely(_length(state["momentum"], dims), largest_length).clamp_max(1.0)


def unit_shape(shape: Sequence[int], coupled_dims: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one number for each unit; it broadcasts over a weight of this shape."""
    dims = unit_dims(len(shape), coupled_dims)
    return tuple(1 if d - len(shape) in dims else n for d, n in enumerate(shape))


def unit_dims(count: int, coupled_dims: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions that one unit spans, in a weight of `count` dimensions. The rows of a vector are its entries."""
    if count > 1:
        return coupled_dims
    return (-1,) if len(coupled_dims) == 2 else ()


def _length(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Euclidean length over `dims`, with keepdim, in float64, in which squares of float32 numbers neither overflow nor vanish."""
    if not dims:
        return x.abs().double()
    return torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=torch.float64)
