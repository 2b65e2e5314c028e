"""One step on one stack of weights, as a pure function."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.optim.stacks import spread
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.plan import Plan, carry_out
from modular_manifolds.solvers.select import steepest
from modular_manifolds.solvers.solution import Solution


@dataclass(frozen=True)
class Step:
    """The point at which the weights land, and the solution that led there, its direction at the length of the step."""

    point: Tensor
    solution: Solution


def take(
    geometry: Geometry,
    point: Tensor,
    gradient: Tensor,
    length: Tensor | float,
    *,
    solver: str | Solver = "auto",
    dual: Tensor | None = None,
) -> Step:
    """`retract(W, length · A)` with A the steepest tangent direction of unit norm.

    Args:
        geometry: manifold and norm of the weights.
        point: shape (*batch, m, n) or (n,).
        gradient: shape (*batch, m, n) or (n,).
        length: the length of the step in the norm, shape (*batch), or a number for one weight; or one for each unit, in
            a shape that broadcasts over the point.
        solver: as in `steepest`.
        dual: as in `steepest`.
    """
    solution = steepest(geometry.manifold, geometry.norm, point, gradient, solver=solver, dual=dual)
    longest = length if isinstance(length, float) else None
    return _along(geometry, point, solution, length, longest)


def take_planned(
    geometry: Geometry,
    plan: Plan,
    point: Tensor,
    gradient: Tensor,
    length: Tensor | float,
    longest: float | None,
    dual: Tensor | None = None,
) -> Step:
    """`take` by a plan that was made for matrices of this shape, dtype and device.

    Args:
        geometry: as in `take`.
        length: as in `take`.
        dual: as in `take`.
        point: shape (*batch, m, n), in at least float32, of one dtype.
        gradient: shape (*batch, m, n), in at least float32, of one dtype.
        longest: a bound on all lengths; None if none is known.
    """
    solution = carry_out(plan, point, gradient, dual)
    return _along(geometry, point, solution, length, longest)


def decay(point: Tensor, amount: Tensor | float) -> Tensor:
    """`(1 − amount) · W`, decoupled weight decay; `amount` has shape (*batch), or is a number for one weight."""
    return point * (1 - _factor(amount, point))


def _along(
    geometry: Geometry,
    point: Tensor,
    solution: Solution,
    length: Tensor | float,
    longest: float | None,
) -> Step:
    # We own the direction, so we scale it in place.
    direction = solution.direction.mul_(_factor(length, point))
    bound = None
    if longest is not None:
        shape = tuple(point.shape) if point.dim() > 1 else (*point.shape, 1)
        bound = longest * geometry.norm.spectral_unit(shape)
        bound = bound if math.isfinite(bound) else None
    return Step(geometry.manifold.retract(point, direction, length=bound), solution)


def _factor(numbers: Tensor | float, like: Tensor) -> Tensor | float:
    """Numbers of shape (*batch) as factors for the weights `like`."""
    shaped = spread(numbers, like)
    return shaped.to(like.dtype) if isinstance(shaped, Tensor) else shaped
