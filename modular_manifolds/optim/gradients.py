"""The gradients of a step: whether they are finite, and which parts of a weight they reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.linalg.matrices import MATRIX, at_least_float32
from modular_manifolds.nn.geometry import Geometry


@dataclass(frozen=True)
class Gradient:
    """The gradient of one weight, for one step.

    A *unit* of a weight is a part that moves by itself at full length: a matrix, a row or an entry, see
    `Geometry.coupled_dims`. A unit is *reached* if its gradient has an entry other than zero.

    Args:
        group: the weight's parameter group.
        weight: the parameter.
        geometry: the weight's manifold and norm.
        value: the gradient in at least float32.
        reached: for each unit whether it is reached, in a shape that broadcasts over `value`; None if all are.
        sums: sums of the gradient, on its device: they are finite only if every entry is, and a sum is zero if
            its matrix is not reached.
    """

    group: dict[str, Any]
    weight: Tensor
    geometry: Geometry
    value: Tensor
    sums: Tensor
    reached: Tensor | None = None


def gradient_of(group: dict[str, Any], weight: Tensor, geometry: Geometry) -> Gradient:
    """The gradient of a weight that has one.

    Raises:
        ArgumentError: the weight is complex, or its gradient is sparse.
    """
    name, gradient = group["name"], weight.grad
    assert gradient is not None
    if not weight.is_floating_point():
        raise ArgumentError(
            f"the weight '{name}'",
            "must be real",
            weight.dtype,
            "Convert the network back with .to(torch.float32): manifolds hold real matrices.",
        )
    if gradient.layout is not torch.strided:
        raise ArgumentError(
            f"the gradient of '{name}'",
            "must be dense",
            f"the layout {gradient.layout}",
            "Put weight.grad.to_dense() in its place, or use functional.embedding with sparse=False.",
        )
    value = at_least_float32(gradient)
    # NaN and infinity survive a sum, which is one pass over the memory.
    sums = value.sum(dim=MATRIX) if value.dim() > 2 else value.sum()
    return Gradient(group, weight, geometry, value, sums.reshape(-1))


def host_sums(gradients: list[Gradient]) -> list[list[float]]:
    """The sums of each gradient on the host; one wait for the device if there is one device."""
    if len(gradients) == 1 or len({each.sums.device for each in gradients}) > 1:
        return [each.sums.tolist() for each in gradients]
    together = torch.cat([each.sums for each in gradients]).tolist()
    separate: list[list[float]] = []
    start = 0
    for each in gradients:
        separate.append(together[start : start + each.sums.numel()])
        start += each.sums.numel()
    return separate


def is_finite(gradient: Gradient, sums: list[float]) -> bool:
    """Whether all entries are finite. A sum of finite entries may overflow, so such a gradient is looked at again."""
    return all(map(math.isfinite, sums)) or bool(torch.isfinite(gradient.value).all())


def reached_units(gradient: Gradient, sums: list[float]) -> Tensor | None:
    """The `reached` of a finite gradient. Entries may cancel in a sum of zero, so such a gradient is looked at again."""
    value, dims = gradient.value, gradient.geometry.coupled_dims
    if dims == MATRIX and all(sums):
        return None
    present = value != 0
    if dims == MATRIX:
        reached = present.any(dim=-1, keepdim=True)
        reached = reached.any(dim=-2, keepdim=True) if value.dim() > 1 else reached
    else:
        # The rows of a vector are its entries: it counts as one column.
        reached = present.any(dim=-1, keepdim=True) if dims and value.dim() > 1 else present
    # On a device the answer to "all of them?" would be waited for, to save a pass over the memory.
    return None if reached.is_cpu and bool(reached.all()) else reached
