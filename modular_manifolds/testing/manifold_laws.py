"""Laws of every manifold: functions of a manifold and a sample that raise AssertionError."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError, ShapeError
from modular_manifolds.linalg.matrices import as_matrices
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.testing.check import (
    at_least,
    at_most,
    close,
    equal,
    separate_memory,
    unchanged,
)
from modular_manifolds.testing.draws import draw_point, scaled_to
from modular_manifolds.testing.measure import distance, size
from modular_manifolds.testing.projection_laws import (
    projection_is_idempotent,
    projection_is_nearest,
    projection_lands_on_the_manifold,
    random_points_are_points,
    tangent_projection_is_idempotent,
    tangent_projection_is_linear_at_any_size,
    tangent_projection_is_orthogonal,
    tangent_projection_is_the_slope_of_the_projection,
)
from modular_manifolds.testing.retraction_laws import (
    retraction_is_first_order,
    retraction_lands_on_the_manifold,
    retraction_survives_steps_that_are_not_tangent,
)
from modular_manifolds.testing.sample import Sample

ManifoldLaw = Callable[[Manifold, Sample], None]


def nan_is_not_hidden(manifold: Manifold, sample: Sample) -> None:
    """A tensor with NaN gives NaN or an error, never a finite point."""
    point, x = draw_point(manifold, sample), sample.normal("x")
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
    point = draw_point(manifold, sample)
    for relative_distance in (1e-3, 0.1, 0.9):
        for x in (
            (1 + relative_distance) * point,
            point + relative_distance * scaled_to(point, sample.normal("x")),
        ):
            projected = manifold.project(x)
            off_by = distance(x, projected) / size(projected)
            required = off_by / math.sqrt(math.prod(sample.matrix_shape)) - sample.tolerance
            law = f"{manifold}.residual of a point {relative_distance:g} off"
            at_least(manifold.residual(x), required, law)


def batched_equals_looped(manifold: Manifold, sample: Sample) -> None:
    """Each matrix of a stack is treated independently; `residual` has the shape of the batch."""
    batch, matrix_shape = (2, 3), sample.matrix_shape
    shape = (*batch, *matrix_shape)
    point = draw_point(manifold, sample, shape)
    x = scaled_to(point, sample.normal("x", shape))
    # One matrix is much larger, so that a number computed over the whole stack would show.
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
            single = {
                "project": manifold.project(x[i, j]),
                "tangent": manifold.tangent(point[i, j], x[i, j]),
                "retract": manifold.retract(point[i, j], step[i, j]),
                "residual": manifold.residual(x[i, j]),
            }
            for name, expected in single.items():
                law = f"{manifold}.{name} of a stack equals one by one"
                close(results[name][i, j], expected, tolerance=sample.tolerance, law=law)


def vectors_are_columns(manifold: Manifold, sample: Sample) -> None:
    """A vector of shape (n,) is treated as the matrix (n, 1)."""
    n = sample.matrix_shape[0]
    try:
        manifold.check_shape((n,))
    except ShapeError:
        return  # the manifold refuses vectors
    column = draw_point(manifold, sample, (n, 1))
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
        close(vector, matrix, tolerance=sample.tolerance, law=law)


def arguments_are_not_written_into(manifold: Manifold, sample: Sample) -> None:
    """No method changes its arguments, and no result shares its memory with one."""
    point, x = draw_point(manifold, sample), sample.normal("x")
    with unchanged(f"{manifold}", point=point, x=x):
        results = {
            "project": manifold.project(point),
            "tangent": manifold.tangent(point, x),
            "retract": manifold.retract(point, x),
            "residual": manifold.residual(point),
        }
    for name, result in results.items():
        separate_memory(result, f"{manifold}.{name}", point=point, x=x)


def half_precision_stays_half_precision(manifold: Manifold, sample: Sample) -> None:
    """bfloat16 tensors give bfloat16 results, computed in float32: the only error is bfloat16's rounding."""
    half = torch.bfloat16
    point, x = draw_point(manifold, sample).to(half), sample.normal("x").to(half)
    wide_point, wide_x = point.float(), x.float()
    pairs = {
        "project": (manifold.project(x), manifold.project(wide_x)),
        "tangent": (manifold.tangent(point, x), manifold.tangent(wide_point, wide_x)),
        "retract": (manifold.retract(point, x), manifold.retract(wide_point, wide_x)),
    }
    for name, (actual, expected) in pairs.items():
        law = f"{manifold}.{name} in bfloat16"
        close(actual, expected.to(half), tolerance=torch.finfo(half).eps, law=law)
    residual = manifold.residual(point)
    equal(residual.dtype, torch.float32, f"{manifold}.residual in bfloat16, dtype")


def declared_bound_holds(manifold: Manifold, sample: Sample) -> None:
    """No point has a singular value above `largest_singular_value`, which is infinite if there is no bound."""
    bound = manifold.largest_singular_value(sample.shape)
    equal(bound < float("inf"), manifold.compact, f"{manifold}: bounded, and compact")
    for i in range(8):
        point = manifold.project(sample.normal(f"point {i}"))
        largest = torch.linalg.matrix_norm(as_matrices(point, argument="point"), 2)
        law = f"{manifold}.largest_singular_value holds at every point"
        at_most(largest, bound * (1 + sample.tolerance), law)
    # A matrix of equal rows has the largest possible singular value for its row norms.
    equal_rows = manifold.project(
        torch.ones(sample.shape, dtype=sample.dtype, device=sample.device)
    )
    largest = torch.linalg.matrix_norm(as_matrices(equal_rows, argument="point"), 2)
    at_most(largest, bound * (1 + sample.tolerance), f"{manifold}.largest_singular_value holds")


def declared_row_bound_holds(manifold: Manifold, sample: Sample) -> None:
    """No row of a point is longer than `largest_row_norm`, which is infinite if there is no bound."""
    bound = manifold.largest_row_norm(sample.shape)
    equal(bound < float("inf"), manifold.compact, f"{manifold}: bounded rows, and compact")
    largest_value = manifold.largest_singular_value(sample.shape)
    law = f"{manifold}.largest_row_norm is no larger than largest_singular_value"
    equal(bound <= largest_value * (1 + sample.tolerance), True, law)
    ones = torch.ones(sample.shape, dtype=sample.dtype, device=sample.device)
    single_entry = torch.zeros_like(ones)
    single_entry.reshape(-1)[0] = 1.0
    for x in (*[sample.normal(f"point {i}") for i in range(8)], ones, single_entry):
        rows = as_matrices(manifold.project(x), argument="point").norm(dim=-1)
        law = f"{manifold}.largest_row_norm holds at every point"
        at_most(rows.amax(), bound * (1 + sample.tolerance), law)


def scaled_points_are_points(manifold: Manifold, sample: Sample) -> None:
    """`c · w` is a point of `scaled(c)` for every point w, and the bounds are multiplied by c."""
    for factor in (0.25, 3.0):
        try:
            scaled = manifold.scaled(factor)
        except ArgumentError:
            return  # the manifold cannot be scaled
        point = draw_point(manifold, sample)
        law = f"{manifold}: {factor:g} times a point is on {scaled}"
        at_most(scaled.residual(factor * point), sample.tolerance, law)
        back = scaled.scaled(1 / factor)
        at_most(back.residual(point), sample.tolerance, f"{manifold}: scaled back, {back}")
        for name in ("largest_singular_value", "largest_row_norm"):
            actual, expected = (getattr(m, name)(sample.shape) for m in (scaled, manifold))
            expected = expected * factor
            same = actual == expected or abs(actual - expected) <= 1e-12 * expected
            equal(
                same, True, f"{manifold}.scaled({factor:g}).{name} is {factor:g} times that before"
            )


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
    declared_row_bound_holds,
    scaled_points_are_points,
)
"""All laws of a manifold, for parametrised tests."""


def check_manifold(manifold: Manifold, sample: Sample) -> None:
    """Check all of MANIFOLD_LAWS; raises AssertionError at the first law that fails."""
    for law in MANIFOLD_LAWS:
        law(manifold, sample)
