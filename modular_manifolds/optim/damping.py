"""Steps that are shortened to their signal: a unit whose gradients are mostly noise moves less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import divide_safely
from modular_manifolds.optim.weight import PieceState

AVERAGES: Final = ("power", "seen")
"""The names of the averages in a weight's state: of ‖G‖², and of whether a gradient reached the unit."""


def signal(
    state: dict[str, Any] | PieceState,
    value: Tensor,
    reached: Tensor | None,
    coupled_dims: tuple[int, ...],
    *,
    momentum: float,
    decay: Tensor | float,
) -> Tensor:
    """The part of each unit's gradients that is signal, between 0 and 1; the state's averages are updated.

    `r = ‖B‖/√(V S)`, in the shape of `power`, with `B ← μB + (1 − μ)G` the momentum after the step,
    `V ← μV + (1 − μ)‖G‖²` and `S ← μS + (1 − μ)[G ≠ 0]`. By Cauchy–Schwarz r is at most 1. It is 1 if all gradients agree,
    also for a unit that is reached for the first time, and near `√((1 − μ)/(1 + μ))` if they are independent and mean nothing.

    Args:
        state: the weight's state; its momentum is up to date.
        value: the gradient G.
        reached: for each unit whether G is not zero there; None if it is nowhere.
        coupled_dims: the dimensions of a unit.
        momentum: μ.
        decay: μ again, or 1 if G is zero because the step is left out.
    """
    dims = unit_dims(value.dim(), coupled_dims)
    sizes = _length(value, dims)
    reached = torch.ones_like(sizes) if reached is None else reached
    state["power"].mul_(decay).add_(sizes.square(), alpha=1 - momentum)
    state["seen"].mul_(decay).add_(reached.to(sizes.dtype), alpha=1 - momentum)
    most = (state["power"] * state["seen"]).sqrt()
    return divide_safely(_length(state["momentum"], dims), most).clamp_max(1.0)


def unit_shape(shape: Sequence[int], coupled_dims: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one number for each unit, which broadcasts over a weight of this shape."""
    dims = unit_dims(len(shape), coupled_dims)
    return tuple(1 if d - len(shape) in dims else n for d, n in enumerate(shape))


def unit_dims(count: int, coupled_dims: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions of one unit of a weight of `count` dimensions. A vector is one column: its rows are its entries."""
    if count > 1:
        return coupled_dims
    return (-1,) if len(coupled_dims) == 2 else ()


def _length(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Euclidean length over `dims`, kept, in float64: squares of float32 neither overflow nor vanish there."""
    if not dims:
        return x.abs().double()
    return torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=torch.float64)
