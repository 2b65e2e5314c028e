"""The gradients of a step: whether they are finite, and which parts of a weight they reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.linalg.matrices import MATRIX, at_least_float32
from modular_manifolds.optim.fallback import Plain
from modular_manifolds.optim.weight import PieceState, Weight

NONFINITE_REMEDY = (
    "Lower lr, look at the loss, or pass on_nonfinite='skip' to leave such steps out."
)


@dataclass(frozen=True)
class Gradient:
    """The gradient of one weight, for one step.

    A *unit* of a weight is a part that moves by itself at full length: a matrix, a row or an entry, see
    `Geometry.coupled_dims`. A unit is *reached* if its gradient has an entry other than zero.

    Args:
        weight: the weight.
        state: the weight's entry of the optimiser's state.
        share: its part of the learning rate.
        value: the gradient in at least float32.
        sums: sums of the gradient, on its device: they are finite only if every entry is, and a sum is zero if
            its matrix is not reached.
        reached: for each unit whether it is reached, in a shape that broadcasts over `value`; None if all are.
    """

    weight: Weight
    state: dict[str, Any] | PieceState
    share: float
    value: Tensor
    sums: Tensor
    reached: Tensor | None = None


def check_gradient(name: str, weight: Tensor) -> None:
    """Refuse a weight that no step is defined for.

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
            f"the gradient of '{name}'",
            "must be dense",
            f"the layout {gradient.layout}",
            "Put weight.grad.to_dense() in its place, or use functional.embedding with sparse=False.",
        )


def gradient_of(weight: Weight, state: dict[str, Any], share: float) -> Gradient:
    """The gradient of a weight that has one."""
    gradient = weight.parameter.grad
    assert gradient is not None
    value = at_least_float32(weight.read(gradient))
    # NaN and infinity survive a sum, which is one pass over the memory.
    sums = value.sum(dim=MATRIX) if value.dim() > 2 else value.sum()
    return Gradient(weight, weight.held(state), share, value, sums.reshape(-1))


def host_sums(gradients: list[Gradient]) -> list[list[float]]:
    """The sums of each gradient on the host."""
    if not gradients:
        return []
    if len(gradients) == 1:
        return [gradients[0].sums.tolist()]
    together = torch.cat([each.sums for each in gradients]).tolist()
    separate: list[list[float]] = []
    start = 0
    for each in gradients:
        separate.append(together[start : start + each.sums.numel()])
        start += each.sums.numel()
    return separate


def first_error(gradients: list[Gradient], sums: list[list[float]]) -> NonFiniteError | None:
    """The error of the first gradient that is not finite; None if all are.

    A sum of finite entries may overflow, so such a gradient is looked at again.
    """
    for gradient, own in zip(gradients, sums, strict=True):
        if all(map(math.isfinite, own)) or bool(torch.isfinite(gradient.value).all()):
            continue
        return _nonfinite(gradient.weight.name, gradient.value)
    return None


def first_plain_error(plain: Sequence[Plain]) -> NonFiniteError | None:
    """The same for gradients of weights that AdamW steps."""
    for each in plain:
        value = each.parameter.grad
        if value is not None and not bool(torch.isfinite(value).all()):
            return _nonfinite(each.name, value)
    return None


def _nonfinite(name: str, value: Tensor) -> NonFiniteError:
    seen = "NaN" if bool(torch.isnan(value).any()) else "infinity"
    return NonFiniteError(f"the gradient of '{name}'", "must be finite", seen, NONFINITE_REMEDY)


def reached_units(gradient: Gradient, sums: list[float]) -> Tensor | None:
    """The `reached` of a finite gradient. Entries may cancel in a sum of zero, so such a gradient is looked at again."""
    value, dims = gradient.value, gradient.weight.geometry.coupled_dims
    if dims == MATRIX and all(sums):
        return None
    present = value != 0
    if dims == MATRIX:
        reached = present.any(dim=-1, keepdim=True)
        reached = reached.any(dim=-2, keepdim=True) if value.dim() > 1 else reached
    else:
        # The rows of a vector are its entries: it counts as one column.
        reached = present.any(dim=-1, keepdim=True) if dims and value.dim() > 1 else present
    return None if bool(reached.all()) else reached
