"""What every manifold must do. A law takes the manifold and a sample and raises AssertionError."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX, as_matrices
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.testing.check import (
    apart,
    at_least,
    at_most,
    close,
    equal,
    finite,
    untouched,
)
from modular_manifolds.testing.sample import Sample

ManifoldLaw = Callable[[Manifold, Sample], None]


def random_points_are_points(manifold: Manifold, sample: Sample) -> None:
    """`random` gives a point of the shape and dtype asked for, the same one for the same generator."""
    point = _point(manifold, sample)
    law = f"{manifold}.random"
    equal(
        (tuple(point.shape), point.dtype), (sample.shape, sample.dtype), f"{law}, shape and dtype"
    )
    at_most(manifold.residual(point), sample.tolerance, f"{law} lands on the manifold")
    close(_point(manifold, sample), point, tolerance=0.0, law=f"{law} follows its generator")


def projection_lands_on_the_manifold(manifold: Manifold, sample: Sample) -> None:
    """The residual of `project(x)` is at rounding level, also for zeros and for very small and large x."""
    for kind, x in _awkward(sample).items():
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
    """No random point, and no point beside the projection, is nearer to x."""
    x = sample.normal("x")
    projected = manifold.project(x)
    nearest = _distance(x, projected)
    generator = sample.generator("others")
    others = [
        manifold.random(sample.shape, generator=generator, dtype=sample.dtype, device=sample.device)
        for _ in range(32)
    ]
    for i, size in enumerate((1e-3, 1e-2, 0.1, 1.0)):
        step = size * _tangent_of_size(manifold, projected, sample.normal(f"step {i}"))
        others += [manifold.retract(projected, step), manifold.retract(projected, -step)]
    for other in others:
        allowed = _distance(x, other) + sample.tolerance * (_size(x) + _size(other))
        at_most(nearest, allowed, f"{manifold}.project gives the nearest point")


def tangent_projection_is_idempotent(manifold: Manifold, sample: Sample) -> None:
    """`P(P(x)) = P(x)`, up to rounding of x."""
    point, x = _point(manifold, sample), sample.normal("x")
    once = manifold.tangent(point, x)
    law = f"{manifold}.tangent is idempotent"
    at_most(_distance(manifold.tangent(point, once), once), sample.tolerance * _size(x), law)


def tangent_projection_is_orthogonal(manifold: Manifold, sample: Sample) -> None:
    """`<P(x), y> = <x, P(y)>`: with idempotence, P is an orthogonal projection."""
    point = _point(manifold, sample)
    x, y = sample.normal("x"), sample.normal("y")
    left = _inner(manifold.tangent(point, x), y)
    right = _inner(x, manifold.tangent(point, y))
    law = f"{manifold}.tangent is self-adjoint"
    at_most((left - right).abs(), sample.tolerance * _size(x) * _size(y), law)


def tangent_projection_is_the_slope_of_the_projection(manifold: Manifold, sample: Sample) -> None:
    """`project(W + tx) = W + t P(x) + O(t²)` at a point W, for tangent and normal x alike.

    This ties the tangent space to the manifold: neither a space too small nor one too large passes.
    Central differences with `t = ε^{1/3}`, so the error is of the order `ε^{2/3}`.
    """
    point = _point(manifold, sample)
    x = _like(point, sample.normal("x"))
    t = sample.eps ** (1 / 3)
    slope = (manifold.project(point + t * x) - manifold.project(point - t * x)) / (2 * t)
    allowed = (sample.accuracy + 100 * sample.eps ** (2 / 3)) * _size(point)
    law = f"{manifold}.tangent is the slope of project"
    at_most(_distance(slope, manifold.tangent(point, x)), allowed, law)


def retraction_is_first_order(manifold: Manifold, sample: Sample) -> None:
    """`‖retract(W, tA) − (W + tA)‖` falls as t²: at t/10 it is a fiftieth at most."""
    point = _point(manifold, sample)
    a = _tangent_of_size(manifold, point, sample.normal("a"))

    def error(t: float) -> Tensor:
        return _distance(manifold.retract(point, t * a), point + t * a) / _size(point)

    law = f"{manifold}.retract is first-order correct"
    for t in (0.1, 0.03):
        at_most(error(t / 10), error(t) / 50 + sample.tolerance, f"{law} at t = {t / 10:g}")


def retraction_lands_on_the_manifold(manifold: Manifold, sample: Sample) -> None:
    """The residual is at rounding level after a step of any length, from 0 to 1e30 radii."""
    point = _point(manifold, sample)
    a = _tangent_of_size(manifold, point, sample.normal("a"))
    for length in (0.0, 1e-6, 1e-3, 0.1, 1.0, 3.0, 10.0, 1e3, 1e6, 1e30):
        law = f"{manifold}.retract by {length:g} radii"
        landed = manifold.retract(point, length * a)
        finite(landed, law)
        at_most(manifold.residual(landed), sample.tolerance, f"{law} lands on the manifold")
    stays = manifold.retract(point, torch.zeros_like(point))
    close(stays, point, tolerance=sample.tolerance, law=f"{manifold}.retract by zero stays")


def retraction_survives_steps_that_are_not_tangent(manifold: Manifold, sample: Sample) -> None:
    """A step off the tangent space still ends on the manifold; so does one from a point a little off it."""
    point = _point(manifold, sample)
    off, away = point * (1 + 1e-2), _like(point, sample.normal("step"))
    # Takes nearly all of a column away: what is left is close to a matrix of lower rank.
    shrinks = torch.zeros_like(point)
    shrinks[..., 0] = -0.999 * point[..., 0]
    for start, step in ((point, 0.3 * away), (point, 3 * away), (off, 0.1 * away), (point, shrinks)):
        landed = manifold.retract(start, step)
        law = f"{manifold}.retract of a step off the tangent space"
        finite(landed, law)
        at_most(manifold.residual(landed), sample.tolerance, f"{law} lands on the manifold")


def tangent_projection_is_linear_at_any_size(manifold: Manifold, sample: Sample) -> None:
    """`P(cx) = c P(x)` for c from 1e-30 to 1e30, and `P(0) = 0`."""
    point, x = _point(manifold, sample), sample.normal("x")
    expected = manifold.tangent(point, x)
    for c in (1e-30, -1e-12, 1e12, 1e30):
        law = f"{manifold}.tangent of a vector {c:g} times as large"
        found = manifold.tangent(point, c * x)
        finite(found, law)
        at_most(_distance(found / c, expected), sample.tolerance * _size(x), law)
    zero = manifold.tangent(point, torch.zeros_like(x))
    equal(int(zero.count_nonzero()), 0, f"{manifold}.tangent of zero, entries that are not zero")


def nan_is_not_hidden(manifold: Manifold, sample: Sample) -> None:
    """A tensor with NaN gives NaN or an error, never a point that looks like any other."""
    point, x = _point(manifold, sample), sample.normal("x")
    x[..., 0] = torch.nan
    calls: dict[str, Callable[[], Tensor]] = {
        "project": lambda: manifold.project(x),
        "tangent": lambda: manifold.tangent(point, x),
        "retract": lambda: manifold.retract(point, x),
    }
    for name, call in calls.items():
        try:
            result = call()
        except (RuntimeError, ValueError):
            continue
        at_least(result.isnan().sum(), 1, f"{manifold}.{name} of NaN, entries that are NaN")


def residual_sees_what_is_off(manifold: Manifold, sample: Sample) -> None:
    """`residual(x) ≥ d/√(mn)` for x at the relative distance `d = ‖x − project(x)‖/‖project(x)‖`."""
    point = _point(manifold, sample)
    for off in (1e-3, 0.1, 0.9):
        for x in ((1 + off) * point, point + off * _like(point, sample.normal("x"))):
            projected = manifold.project(x)
            distance = _distance(x, projected) / _size(projected)
            least = distance / math.sqrt(math.prod(sample.matrix_shape)) - sample.tolerance
            law = f"{manifold}.residual of a point {off:g} off"
            at_least(manifold.residual(x), least, law)


def batched_equals_looped(manifold: Manifold, sample: Sample) -> None:
    """Each matrix of a stack is treated by itself; `residual` has the shape of the batch."""
    batch, one = (2, 3), sample.matrix_shape
    shape = (*batch, *one)
    point = _point(manifold, sample, shape)
    x = _like(point, sample.normal("x", shape))
    # One matrix is much larger: a number taken over the whole stack would show.
    x[1, 2] *= 100.0
    step = manifold.tangent(point, x)
    results = {
        "project": manifold.project(x),
        "tangent": step,
        "retract": manifold.retract(point, step),
        "residual": manifold.residual(x),
    }
    equal(tuple(results["residual"].shape), batch, f"{manifold}.residual of a stack, shape")
    for i in range(batch[0]):
        for j in range(batch[1]):
            alone = {
                "project": manifold.project(x[i, j]),
                "tangent": manifold.tangent(point[i, j], x[i, j]),
                "retract": manifold.retract(point[i, j], step[i, j]),
                "residual": manifold.residual(x[i, j]),
            }
            for name, expected in alone.items():
                law = f"{manifold}.{name} of a stack equals one by one"
                close(results[name][i, j], expected, tolerance=sample.tolerance, law=law)


def vectors_are_columns(manifold: Manifold, sample: Sample) -> None:
    """A vector of shape (n,) is treated as the matrix (n, 1)."""
    n = sample.matrix_shape[0]
    column = _point(manifold, sample, (n, 1))
    x = sample.normal("x", (n, 1))
    point, v = column[:, 0], x[:, 0]
    pairs = {
        "project": (manifold.project(v), manifold.project(x)[:, 0]),
        "tangent": (manifold.tangent(point, v), manifold.tangent(column, x)[:, 0]),
        "retract": (manifold.retract(point, v), manifold.retract(column, x)[:, 0]),
        "residual": (manifold.residual(v), manifold.residual(x)),
    }
    for name, (vector, matrix) in pairs.items():
        law = f"{manifold}.{name} of a vector equals that of a column"
        close(vector, matrix, tolerance=0.0, law=law)


def arguments_are_not_written_into(manifold: Manifold, sample: Sample) -> None:
    """No method changes its arguments, and no result shares its memory with one."""
    point, x = _point(manifold, sample), sample.normal("x")
    with untouched(f"{manifold}", point=point, x=x):
        results = {
            "project": manifold.project(point),
            "tangent": manifold.tangent(point, x),
            "retract": manifold.retract(point, x),
            "residual": manifold.residual(point),
        }
    for name, result in results.items():
        apart(result, f"{manifold}.{name}", point=point, x=x)


def half_precision_stays_half_precision(manifold: Manifold, sample: Sample) -> None:
    """bfloat16 in, bfloat16 out, computed in float32: off by bfloat16's own rounding only."""
    half = torch.bfloat16
    point, x = _point(manifold, sample).to(half), sample.normal("x").to(half)
    wide_point, wide_x = point.float(), x.float()
    pairs = {
        "project": (manifold.project(x), manifold.project(wide_x)),
        "tangent": (manifold.tangent(point, x), manifold.tangent(wide_point, wide_x)),
        "retract": (manifold.retract(point, x), manifold.retract(wide_point, wide_x)),
    }
    for name, (found, expected) in pairs.items():
        law = f"{manifold}.{name} in bfloat16"
        close(found, expected.to(half), tolerance=torch.finfo(half).eps, law=law)
    residual = manifold.residual(point)
    equal(residual.dtype, torch.float32, f"{manifold}.residual in bfloat16, dtype")


def declared_bound_holds(manifold: Manifold, sample: Sample) -> None:
    """No point has a singular value above `largest_singular_value`; it is infinite where there is none."""
    bound = manifold.largest_singular_value(sample.shape)
    equal(bound < float("inf"), manifold.compact, f"{manifold}: bounded, and compact")
    for i in range(8):
        point = manifold.project(sample.normal(f"point {i}"))
        largest = torch.linalg.matrix_norm(as_matrices(point, argument="point"), 2)
        law = f"{manifold}.largest_singular_value holds at every point"
        at_most(largest, bound * (1 + sample.tolerance), law)
    # A point with all rows alike is as far from balanced as a point can be.
    alike = manifold.project(torch.ones(sample.shape, dtype=sample.dtype, device=sample.device))
    largest = torch.linalg.matrix_norm(as_matrices(alike, argument="point"), 2)
    at_most(largest, bound * (1 + sample.tolerance), f"{manifold}.largest_singular_value holds")


MANIFOLD_LAWS: Final[tuple[ManifoldLaw, ...]] = (
    random_points_are_points,
    projection_lands_on_the_manifold,
    projection_is_idempotent,
    projection_is_nearest,
    tangent_projection_is_idempotent,
    tangent_projection_is_orthogonal,
    tangent_projection_is_the_slope_of_the_projection,
    tangent_projection_is_linear_at_any_size,
    retraction_is_first_order,
    retraction_lands_on_the_manifold,
    retraction_survives_steps_that_are_not_tangent,
    nan_is_not_hidden,
    residual_sees_what_is_off,
    batched_equals_looped,
    vectors_are_columns,
    arguments_are_not_written_into,
    half_precision_stays_half_precision,
    declared_bound_holds,
)
"""All laws of a manifold, for a test to be parametrised over."""


def check_manifold(manifold: Manifold, sample: Sample) -> None:
    """Hold `manifold` to all of MANIFOLD_LAWS; raises AssertionError at the first that breaks."""
    for law in MANIFOLD_LAWS:
        law(manifold, sample)


def _point(manifold: Manifold, sample: Sample, shape: tuple[int, ...] | None = None) -> Tensor:
    return manifold.random(
        sample.shape if shape is None else shape,
        generator=sample.generator("point"),
        dtype=sample.dtype,
        device=sample.device,
    )


def _awkward(sample: Sample) -> dict[str, Tensor]:
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


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (as_matrices(a, argument="a") * as_matrices(b, argument="b")).sum(dim=MATRIX)


def _size(x: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(as_matrices(x, argument="x"))


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return _size(a - b)


def _like(point: Tensor, x: Tensor) -> Tensor:
    """`x` brought to the size of `point`, so that steps are counted in radii."""
    return x * (torch.linalg.vector_norm(point) / torch.linalg.vector_norm(x))


def _tangent_of_size(manifold: Manifold, point: Tensor, x: Tensor) -> Tensor:
    # Not normalised after the projection: where the tangent space is only zero, that would be noise.
    return manifold.tangent(point, _like(point, x))
