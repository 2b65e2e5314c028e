"""Laws of projections: they give the nearest point, and their derivative is the tangent projection."""

from __future__ import annotations

import torch
from torch import Tensor

from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.testing.check import at_most, close, equal, finite
from modular_manifolds.testing.draws import (
    draw_inner_point,
    draw_point,
    scaled_tangent,
    scaled_to,
)
from modular_manifolds.testing.measure import distance, inner, size
from modular_manifolds.testing.sample import Sample


def random_points_are_points(manifold: Manifold, sample: Sample) -> None:
    """`random` gives a point of the requested shape and dtype, and the same point for the same generator."""
    point = draw_point(manifold, sample)
    law = f"{manifold}.random"
    equal(
        (tuple(point.shape), point.dtype), (sample.shape, sample.dtype), f"{law}, shape and dtype"
    )
    at_most(manifold.residual(point), sample.tolerance, f"{law} lands on the manifold")
    close(draw_point(manifold, sample), point, tolerance=0.0, law=f"{law} follows its generator")


def projection_lands_on_the_manifold(manifold: Manifold, sample: Sample) -> None:
    """The residual of `project(x)` is at rounding level, also for zeros and for very small and large x."""
    for kind, x in _inputs_of_all_sizes(sample).items():
        law = f"{manifold}.project of {kind} entries"
        projected = manifold.project(x)
        finite(projected, law)
        at_most(manifold.residual(projected), sample.tolerance, f"{law} lands on the manifold")


def projection_is_idempotent(manifold: Manifold, sample: Sample) -> None:
    """`project(project(x)) = project(x)`."""
    once = manifold.project(sample.normal("x"))
    law = f"{manifold}.project is idempotent"
    close(manifold.project(once), once, tolerance=sample.tolerance, law=law)


def projection_is_nearest(manifold: Manifold, sample: Sample) -> None:
    """No random point, and no point close to the projection, is nearer to x."""
    x = sample.normal("x")
    projected = manifold.project(x)
    nearest = distance(x, projected)
    generator = sample.generator("others")
    others = [
        manifold.random(sample.shape, generator=generator, dtype=sample.dtype, device=sample.device)
        for _ in range(32)
    ]
    for i, radii in enumerate((1e-3, 1e-2, 0.1, 1.0)):
        step = radii * scaled_tangent(manifold, projected, sample.normal(f"step {i}"))
        others += [manifold.retract(projected, step), manifold.retract(projected, -step)]
    for other in others:
        allowed = distance(x, other) + sample.tolerance * (size(x) + size(other))
        at_most(nearest, allowed, f"{manifold}.project gives the nearest point")


def tangent_projection_is_idempotent(manifold: Manifold, sample: Sample) -> None:
    """`P(P(x)) = P(x)`, up to the rounding of x."""
    point, x = draw_point(manifold, sample), sample.normal("x")
    once = manifold.tangent(point, x)
    law = f"{manifold}.tangent is idempotent"
    at_most(distance(manifold.tangent(point, once), once), sample.tolerance * size(x), law)


def tangent_projection_is_orthogonal(manifold: Manifold, sample: Sample) -> None:
    """`<P(x), y> = <x, P(y)>`: with idempotence, P is an orthogonal projection."""
    point = draw_point(manifold, sample)
    x, y = sample.normal("x"), sample.normal("y")
    left = inner(manifold.tangent(point, x), y)
    right = inner(x, manifold.tangent(point, y))
    law = f"{manifold}.tangent is self-adjoint"
    at_most((left - right).abs(), sample.tolerance * size(x) * size(y), law)


def tangent_projection_is_the_slope_of_the_projection(manifold: Manifold, sample: Sample) -> None:
    """`project(W + tx) = W + t P(x) + O(t²)` at a point W, for tangent and normal x alike, on the leaf of W.

    A tangent space that is too small or too large for the manifold fails. The slope is a central difference D(t) with
    `t = ε^{1/3}`, whose rounding is of the order `ε^{2/3}`. The error of D(t) from the curvature is `ct²`, a third of
    `D(2t) − D(t)`; twice that difference is allowed.
    """
    point = draw_inner_point(manifold, sample)
    x = scaled_to(point, sample.normal("x"))
    t = sample.eps ** (1 / 3)

    leaf = manifold.leaf(point)

    def slope(t: float) -> Tensor:
        return (leaf.project(point + t * x) - leaf.project(point - t * x)) / (2 * t)

    fine_slope, coarse_slope = slope(t), slope(2 * t)
    rounding = (sample.accuracy + 100 * sample.eps ** (2 / 3)) * size(point)
    law = f"{manifold}.tangent is the slope of project"
    allowed = 2 * distance(fine_slope, coarse_slope) + rounding
    at_most(distance(fine_slope, manifold.tangent(point, x)), allowed, law)


def tangent_projection_is_linear_at_any_size(manifold: Manifold, sample: Sample) -> None:
    """`P(cx) = c P(x)` for c from 1e-30 to 1e30, and `P(0) = 0`."""
    point, x = draw_point(manifold, sample), sample.normal("x")
    expected = manifold.tangent(point, x)
    for c in (1e-30, -1e-12, 1e12, 1e30):
        law = f"{manifold}.tangent of a vector {c:g} times as large"
        tangent = manifold.tangent(point, c * x)
        finite(tangent, law)
        at_most(distance(tangent / c, expected), sample.tolerance * size(x), law)
    zero = manifold.tangent(point, torch.zeros_like(x))
    equal(int(zero.count_nonzero()), 0, f"{manifold}.tangent of zero, entries that are not zero")


def _inputs_of_all_sizes(sample: Sample) -> dict[str, Tensor]:
    x = sample.normal("x")
    mixed = torch.where(sample.normal("where") > 0, 1e-30, 1e30)
    return {
        "normal": x,
        "zero": torch.zeros_like(x),
        "tiny": 1e-30 * x,
        "huge": 1e30 * x,
        "mixed": mixed * x,
        "equal": torch.ones_like(x),
        "some zero": torch.where(sample.normal("where") > 0, x, 0.0),
    }
