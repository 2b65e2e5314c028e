"""One step on one stack of weights, as a pure function."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.select import steepest
from modular_manifolds.solvers.solution import Solution


@dataclass(frozen=True)
class Step:
    """Where the weights land, and the solution that led there, its direction at the length of the step."""

    point: Tensor
    solution: Solution


def take(
    geometry: Geometry,
    point: Tensor,
    gradient: Tensor,
    length: Tensor,
    *,
    solver: str | Solver = "auto",
    dual: Tensor | None = None,
) -> Step:
    """`retract(W, length · A)` with A the steepest tangent direction of unit norm.

    Args:
        geometry: manifold and norm of the weights.
        point, gradient: shape (*batch, m, n) or (n,).
        length: the length of the step in the norm, shape (*batch).
        solver, dual: as in `steepest`.
    """
    solution = steepest(geometry.manifold, geometry.norm, point, gradient, solver=solver, dual=dual)
    scale = length.reshape(length.shape + (1,) * (point.dim() - length.dim())).to(point.dtype)
    # The direction is nobody else's: its memory is used again.
    return Step(geometry.manifold.retract(point, solution.direction.mul_(scale)), solution)


def decay(point: Tensor, amount: Tensor) -> Tensor:
    """`(1 − amount) · W`, decoupled weight decay; `amount` has shape (*batch)."""
    return point * (1 - amount.reshape(amount.shape + (1,) * (point.dim() - amount.dim())))


def all_finite(tensors: list[Tensor]) -> list[bool]:
    """For each tensor whether all its entries are finite; one wait for the device where they are.

    NaN and infinity survive a sum, which is one pass. A sum of finite entries may overflow, so a sum that
    is not finite is looked at again.
    """
    sums = [each.sum(dtype=torch.promote_types(each.dtype, torch.float32)) for each in tensors]
    values = [float(sums[0])] if len(sums) == 1 else torch.stack(sums).tolist()
    finite = [math.isfinite(each) for each in values]
    if all(finite):
        return finite
    return torch.stack([torch.isfinite(each).all() for each in tensors]).tolist()
