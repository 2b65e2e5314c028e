"""Laws of every norm: functions of a norm and a sample that raise AssertionError."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.norms.base import Norm
from modular_manifolds.testing.check import (
    at_least,
    at_most,
    close,
    equal,
    finite,
    separate_memory,
    unchanged,
)
from modular_manifolds.testing.measure import inner, vector_norm
from modular_manifolds.testing.sample import SIZES, Sample

NormLaw = Callable[[Norm, Sample], None]


def is_positively_homogeneous(norm: Norm, sample: Sample) -> None:
    """`‖cX‖ = |c| ‖X‖` for c of either sign and any size, for the norm and its dual."""
    x = sample.normal("x")
    for name, measure in _both(norm):
        size = measure(x)
        for c in (-2.5, 1e-30, -1e-12, 1e12, 1e30):
            law = f"{norm}.{name} is homogeneous at {c:g}"
            scaled = measure(c * x)
            finite(scaled, law)
            close(scaled / abs(c), size, tolerance=sample.rounding, law=law)


def is_definite(norm: Norm, sample: Sample) -> None:
    """Zero has length zero; a matrix with one tiny entry has not."""
    zero = torch.zeros(sample.shape, dtype=sample.dtype, device=sample.device)
    single = zero.clone()
    single[..., -1] = 1e-30
    for name, measure in _both(norm):
        equal(float(measure(zero).abs().max()), 0.0, f"{norm}.{name} of zero")
        at_least(measure(single), 1e-33, f"{norm}.{name} of one small entry")


def obeys_the_triangle_inequality(norm: Norm, sample: Sample) -> None:
    """`‖X + Y‖ ≤ ‖X‖ + ‖Y‖`, for the norm and its dual."""
    x = sample.normal("x")
    for i, y in enumerate((sample.normal("y"), 1e-3 * sample.normal("z"), -x, 3 * x, x.sign())):
        for name, measure in _both(norm):
            allowed = (measure(x) + measure(y)) * (1 + sample.rounding)
            at_most(measure(x + y), allowed, f"{norm}.{name}, triangle inequality, pair {i}")


def dual_bounds_the_inner_product(norm: Norm, sample: Sample) -> None:
    """`<G, A> ≤ dual(G) · ‖A‖`."""
    g = sample.normal("g")
    tests = [sample.normal(f"a{i}") for i in range(16)] + [g, g.sign(), -norm.steepest(g)]
    for a in tests:
        allowed = norm.dual(g) * norm.value(a) * (1 + sample.rounding)
        at_most(inner(g, a), allowed, f"{norm}: <G, A> is at most dual(G) times value(A)")


def steepest_attains_the_dual(norm: Norm, sample: Sample) -> None:
    """`value(steepest(G)) = 1` and `<G, steepest(G)> = −dual(G)`, within the sample's accuracy."""
    g = sample.normal("g")
    direction = norm.steepest(g)
    equal(
        (direction.shape, direction.dtype), (g.shape, g.dtype), f"{norm}.steepest, shape and dtype"
    )
    one = torch.ones_like(norm.value(g))
    close(
        norm.value(direction), one, tolerance=sample.tolerance, law=f"{norm}.steepest has length 1"
    )
    law = f"{norm}.steepest attains the dual"
    close(-inner(g, direction), norm.dual(g), tolerance=sample.tolerance, law=law)


def steepest_does_not_depend_on_size(norm: Norm, sample: Sample) -> None:
    """`steepest(cG) = steepest(G)` for c from 2^-100 to 2^100."""
    g = sample.normal("g")
    expected = norm.steepest(g)
    for c in SIZES:
        law = f"{norm}.steepest of a gradient {c:g} times as large"
        close(norm.steepest(c * g), expected, tolerance=sample.rounding, law=law)


def zero_gradient_gives_zero(norm: Norm, sample: Sample) -> None:
    """The steepest direction of a zero gradient is zero, not NaN."""
    zero = torch.zeros(sample.shape, dtype=sample.dtype, device=sample.device)
    direction = norm.steepest(zero)
    equal(int(direction.count_nonzero()), 0, f"{norm}.steepest of zero, entries that are not zero")


def some_zeros_do_no_harm(norm: Norm, sample: Sample) -> None:
    """A gradient with zero entries, rows or columns gives a finite direction of at most unit length."""
    g = sample.normal("g")
    with_zeros = torch.where(sample.normal("where") > 0, g, 0.0)
    single = torch.zeros_like(g)
    single[..., 0] = g[..., 0]
    for each in (with_zeros, single):
        direction = norm.steepest(each)
        finite(direction, f"{norm}.steepest with zeros")
        at_most(norm.value(direction), 1 + sample.tolerance, f"{norm}.steepest with zeros, length")


def nan_is_not_hidden(norm: Norm, sample: Sample) -> None:
    """A gradient with NaN gives NaN or an error, never a finite result."""
    g = sample.normal("g")
    g[..., 0] = torch.nan
    for name, method in (*_both(norm), ("steepest", norm.steepest)):
        try:
            result = method(g)
        except (RuntimeError, ValueError):
            continue
        at_least(result.isnan().sum(), 1, f"{norm}.{name} of NaN, entries that are NaN")


def measures_the_operator(norm: Norm, sample: Sample) -> None:
    """`‖Wx‖_target ≤ norm_constant · ‖W‖ · ‖x‖_source` for random, sign and coordinate vectors."""
    shape = sample.matrix_shape
    w = sample.normal("w", shape)
    constant = norm.norm_constant(shape)
    for x in (w, norm.steepest(w)):
        allowed = constant * norm.value(x) * (1 + sample.rounding)
        for kind, v in _vectors(sample, shape[1], x).items():
            ratio = vector_norm(v @ x.mT, norm.target) / vector_norm(v, norm.source)
            at_most(ratio, allowed, f"{norm}.norm_constant holds for {kind} vectors")


def batched_equals_looped(norm: Norm, sample: Sample) -> None:
    """Each matrix of a stack is treated independently; `value` and `dual` have the shape of the batch."""
    batch, matrix_shape = (2, 3), sample.matrix_shape
    x = sample.normal("x", (*batch, *matrix_shape))
    x[1, 2] *= 100.0
    x[0, 1] = 0.0
    results = {"value": norm.value(x), "dual": norm.dual(x), "steepest": norm.steepest(x)}
    for name in ("value", "dual"):
        equal(tuple(results[name].shape), batch, f"{norm}.{name} of a stack, shape")
    for i in range(batch[0]):
        for j in range(batch[1]):
            single = {
                "value": norm.value(x[i, j]),
                "dual": norm.dual(x[i, j]),
                "steepest": norm.steepest(x[i, j]),
            }
            for name, expected in single.items():
                law = f"{norm}.{name} of a stack equals one by one"
                # An iteration may amplify the rounding of a product that is summed in another order.
                tolerance = math.sqrt(sample.eps) if name == "steepest" else sample.rounding
                close(results[name][i, j], expected, tolerance=tolerance, law=law)


def vectors_are_columns(norm: Norm, sample: Sample) -> None:
    """A vector of shape (n,) is measured as the matrix (n, 1)."""
    column = sample.normal("x", (sample.matrix_shape[0], 1))
    vector = column[:, 0]
    pairs = {
        "value": (norm.value(vector), norm.value(column)),
        "dual": (norm.dual(vector), norm.dual(column)),
        "steepest": (norm.steepest(vector), norm.steepest(column)[:, 0]),
    }
    for name, (actual, expected) in pairs.items():
        law = f"{norm}.{name} of a vector equals that of a column"
        close(actual, expected, tolerance=sample.rounding, law=law)


def arguments_are_not_written_into(norm: Norm, sample: Sample) -> None:
    """No method changes its argument, and no result shares its memory with it."""
    x = sample.normal("x")
    with unchanged(f"{norm}", x=x):
        results = {"value": norm.value(x), "dual": norm.dual(x), "steepest": norm.steepest(x)}
    for name, result in results.items():
        separate_memory(result, f"{norm}.{name}", x=x)


def half_precision_is_computed_in_single(norm: Norm, sample: Sample) -> None:
    """For bfloat16, `value` and `dual` are float32, and `steepest` is the rounded result for the float32 tensor.

    The same operations in the same shapes give the same bits on every processor, so the tolerance is 0.
    """
    half = torch.bfloat16
    x = sample.normal("x").to(half)
    wide = x.float()
    close(norm.value(x), norm.value(wide), tolerance=0.0, law=f"{norm}.value in bfloat16")
    close(norm.dual(x), norm.dual(wide), tolerance=0.0, law=f"{norm}.dual in bfloat16")
    actual, expected = norm.steepest(x), norm.steepest(wide).to(half)
    close(actual, expected, tolerance=0.0, law=f"{norm}.steepest in bfloat16")


NORM_LAWS: Final[tuple[NormLaw, ...]] = (
    is_positively_homogeneous,
    is_definite,
    obeys_the_triangle_inequality,
    dual_bounds_the_inner_product,
    steepest_attains_the_dual,
    steepest_does_not_depend_on_size,
    zero_gradient_gives_zero,
    some_zeros_do_no_harm,
    nan_is_not_hidden,
    measures_the_operator,
    batched_equals_looped,
    vectors_are_columns,
    arguments_are_not_written_into,
    half_precision_is_computed_in_single,
)
"""All laws of a norm, for parametrised tests."""


def check_norm(norm: Norm, sample: Sample) -> None:
    """Check all of NORM_LAWS; raises AssertionError at the first law that fails."""
    for law in NORM_LAWS:
        law(norm, sample)


def _both(norm: Norm) -> tuple[tuple[str, Callable[[Tensor], Tensor]], ...]:
    return ("value", norm.value), ("dual", norm.dual)


def _vectors(sample: Sample, size: int, w: Tensor) -> dict[str, Tensor]:
    """Vectors that attain, or nearly attain, the operator norms of the matrix `w` in rms, l2, l1 and linf."""
    random = sample.normal("vectors", (64, size))
    return {
        "random": random,
        "sign": random.sign(),
        "coordinate": torch.eye(size, dtype=sample.dtype, device=sample.device),
        "row": w,
        "row's sign": w.sign() + (w == 0),
        "singular": torch.linalg.svd(w)[2],
    }
