"""One step on one stack of weights, as a pure function."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.optim.stacks import broadcast_over
from modular_manifolds.solvers.plan import Plan, carry_out
from modular_manifolds.solvers.solution import Solution


@dataclass(frozen=True)
class Step:
    """The new point, and the solution, whose direction has the length of the step."""

    point: Tensor
    solution: Solution


def take_planned_step(
    geometry: Geometry,
    plan: Plan,
    point: Tensor,
    gradient: Tensor,
    length: Tensor | float,
    longest_step: float | None,
    dual: Tensor | None = None,
) -> Step:
    """`retract(W, length · A)` with A the steepest tangent direction of unit norm, by a plan for this shape, dtype and device.

    Args:
        geometry: manifold and norm of the weights.
        plan: the plan of their solver.
        point: W, shape (*batch, m, n), in at least float32.
        gradient: the gradient at W, of the same shape and dtype.
        length: the length of the step in the norm, shape (*batch), or a number for one weight; or one for each unit, in
            a shape that broadcasts over the point.
        longest_step: a bound on all lengths; None if there is none.
        dual: the dual variable that the plan starts from.
    """
    solution = carry_out(plan, point, gradient, dual)
    # We own the direction, so we scale it in place.
    direction = solution.direction.mul_(_factor(length, point))
    bound = None
    if longest_step is not None:
        shape = tuple(point.shape) if point.dim() > 1 else (*point.shape, 1)
        bound = longest_step * geometry.norm.spectral_unit(shape)
        bound = bound if math.isfinite(bound) else None
    return Step(geometry.manifold.retract(point, direction, length=bound), solution)


def decay(point: Tensor, amount: Tensor | float) -> Tensor:
    """`(1 − amount) · W`, decoupled weight decay; `amount` has shape (*batch), or is a number for one weight."""
    return point * (1 - _factor(amount, point))


def _factor(numbers: Tensor | float, like: Tensor) -> Tensor | float:
    """Numbers of shape (*batch) in the shape and dtype of factors for the weights `like`."""
    shaped = broadcast_over(numbers, like)
    return shaped.to(like.dtype) if isinstance(shaped, Tensor) else shaped
