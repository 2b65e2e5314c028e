"""The gradients of a step on the host: whether they are finite, and which units of a weight they reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.linalg.matrices import MATRIX, at_least_float32
from modular_manifolds.optim.fallback import FallbackWeight
from modular_manifolds.optim.weight import PieceState, Weight

NONFINITE_REMEDY = "Lower lr, look at the loss, or pass on_nonfinite='skip' to cancel such steps."


@dataclass(frozen=True)
class Gradient:
    """The gradient of one weight, for one step.

    A *unit* of a weight is a matrix, a row or an entry that moves independently at full length, see
    `Geometry.coupled_dims`. A unit is *reached* if its gradient has a nonzero entry.

    Args:
        weight: the weight.
        state: the weight's entry of the optimiser's state.
        share: the weight's fraction of the learning rate.
        value: the gradient in at least float32.
        sums: the sum of each matrix of the gradient. A finite sum proves finite entries, and a nonzero sum proves that the
            matrix is reached.
        reached: whether each unit is reached, in a shape that broadcasts over `value`; None if all are.
    """

    weight: Weight
    state: dict[str, Any] | PieceState
    share: float
    value: Tensor
    sums: Tensor
    reached: Tensor | None = None


def check_gradient(name: str, weight: Tensor) -> None:
    """Refuse a complex weight or a sparse gradient.

    Raises:
        ArgumentError: the weight is complex, or its gradient is sparse.
    """
    gradient = weight.grad
    if not weight.is_floating_point():
        raise ArgumentError(
            f"the weight '{name}'",
            "must be real",
            weight.dtype,
            "Convert the network back with .to(torch.float32): manifolds hold real matrices.",
        )
    if gradient is not None and gradient.layout is not torch.strided:
        raise ArgumentError(
            gradient_argument(name),
            "must be dense",
            f"the layout {gradient.layout}",
            "Put weight.grad.to_dense() in its place, or use functional.embedding with sparse=False.",
        )


def gradient_of(weight: Weight, state: dict[str, Any], share: float) -> Gradient:
    """The gradient of a weight that has one."""
    gradient = weight.parameter.grad
    assert gradient is not None
    value = at_least_float32(weight.read(gradient))
    # A sum keeps NaN and infinity, and reads the memory once.
    sums = value.sum(dim=MATRIX) if value.dim() > 2 else value.sum()
    return Gradient(weight, weight.entries(state), share, value, sums.reshape(-1))


def gradient_argument(name: str) -> str:
    """The name of a weight's gradient in errors."""
    return f"the gradient of '{name}'"


def host_sums(gradients: list[Gradient]) -> list[list[float]]:
    """The sums of each gradient on the host."""
    if not gradients:
        return []
    if len(gradients) == 1:
        return [gradients[0].sums.tolist()]
    flat = torch.cat([each.sums for each in gradients]).tolist()
    separate: list[list[float]] = []
    start = 0
    for each in gradients:
        separate.append(flat[start : start + each.sums.numel()])
        start += each.sums.numel()
    return separate


def first_error(gradients: list[Gradient], sums: list[list[float]]) -> NonFiniteError | None:
    """The error of the first gradient that is not finite; None if all are.

    A sum of finite entries may overflow, so the entries decide if a sum is not finite.
    """
    for gradient, matrix_sums in zip(gradients, sums, strict=True):
        if all(map(math.isfinite, matrix_sums)) or bool(torch.isfinite(gradient.value).all()):
            continue
        return _nonfinite(gradient.weight.name, gradient.value)
    return None


def first_fallback_error(fallback: Sequence[FallbackWeight]) -> NonFiniteError | None:
    """The error of the first AdamW gradient that is not finite; None if all are."""
    for each in fallback:
        value = each.parameter.grad
        if value is not None and not bool(torch.isfinite(value).all()):
            return _nonfinite(each.name, value)
    return None


def _nonfinite(name: str, value: Tensor) -> NonFiniteError:
    seen = "NaN" if bool(torch.isnan(value).any()) else "infinity"
    return NonFiniteError(gradient_argument(name), "must be finite", seen, NONFINITE_REMEDY)


def reached_units(gradient: Gradient, sums: list[float]) -> Tensor | None:
    """The units that a finite gradient reaches, as a mask; None if all. Entries may cancel in a sum of zero, so then the entries decide."""
    value, dims = gradient.value, gradient.weight.geometry.coupled_dims
    if dims == MATRIX and all(sums):
        return None
    nonzero = value != 0
    if dims == MATRIX:
        reached = nonzero.any(dim=-1, keepdim=True)
        reached = reached.any(dim=-2, keepdim=True) if value.dim() > 1 else reached
    else:
        # A vector is one column, so its rows are its entries.
        reached = nonzero.any(dim=-1, keepdim=True) if dims and value.dim() > 1 else nonzero
    return None if bool(reached.all()) else reached
