"""Laws of retractions: they follow a step to first order and end on the manifold for any length."""

from __future__ import annotations

import torch
from torch import Tensor

from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.testing.check import at_most, close, finite
from modular_manifolds.testing.draws import (
    draw_inner_point,
    draw_point,
    scaled_tangent,
    scaled_to,
)
from modular_manifolds.testing.measure import distance, size
from modular_manifolds.testing.sample import Sample


def retraction_is_first_order(manifold: Manifold, sample: Sample) -> None:
    """`‖retract(W, tA) − (W + tA)‖` decreases as t²: at t/10 it is at most a fiftieth.

    If the manifold has a boundary, W is an interior point.
    """
    point = draw_inner_point(manifold, sample)
    a = scaled_tangent(manifold, point, sample.normal("a"))

    def error(t: float) -> Tensor:
        return distance(manifold.retract(point, t * a), point + t * a) / size(point)

    law = f"{manifold}.retract is first-order correct"
    for t in (0.1, 0.03):
        at_most(error(t / 10), error(t) / 50 + sample.tolerance, f"{law} at t = {t / 10:g}")


def retraction_lands_on_the_manifold(manifold: Manifold, sample: Sample) -> None:
    """The residual is at rounding level after a step of any length, from 0 to 1e30 radii."""
    point = draw_point(manifold, sample)
    a, leaf = scaled_tangent(manifold, point, sample.normal("a")), manifold.leaf(point)
    for length in (0.0, 1e-6, 1e-3, 0.1, 1.0, 3.0, 10.0, 1e3, 1e6, 1e30):
        law = f"{manifold}.retract by {length:g} radii"
        landed = manifold.retract(point, length * a)
        finite(landed, law)
        at_most(leaf.residual(landed), sample.tolerance, f"{law} lands on the manifold")
    unmoved = manifold.retract(point, torch.zeros_like(point))
    close(unmoved, point, tolerance=sample.tolerance, law=f"{manifold}.retract by zero stays")


def retraction_survives_steps_that_are_not_tangent(manifold: Manifold, sample: Sample) -> None:
    """A step off the tangent space, or from a point off the manifold, ends on the manifold."""
    point = draw_point(manifold, sample)
    point_off_manifold, off_tangent = point * (1 + 1e-2), scaled_to(point, sample.normal("step"))
    # This step nearly cancels a column, so that the sum is close to a matrix of lower rank.
    rank_reducing = torch.zeros_like(point)
    rank_reducing[..., 0] = -0.999 * point[..., 0]
    for start, step in (
        (point, 0.3 * off_tangent),
        (point, 3 * off_tangent),
        (point_off_manifold, 0.1 * off_tangent),
        (point, rank_reducing),
    ):
        landed = manifold.retract(start, step)
        law = f"{manifold}.retract of a step off the tangent space"
        finite(landed, law)
        # A point that lies on the manifold to rounding stays as it is, and so does its leaf.
        nearest = start if start is point else manifold.project(start)
        residual = manifold.leaf(nearest).residual(landed)
        at_most(residual, sample.tolerance, f"{law} lands on the manifold")
