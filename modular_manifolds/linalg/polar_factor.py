"""The polar factor `X (XᵀX)^{-1/2}` by a number of matrix products known in advance; nothing is read on the host."""

from __future__ import annotations

import functools
import math
import operator
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.linalg.backend import resolve, stiefel_retract_by_kernels
from modular_manifolds.linalg.coefficients import NEWTON_SCHULZ_QUINTIC, Polynomial
from modular_manifolds.linalg.compilers import constant
from modular_manifolds.linalg.gram_newton_schulz import gram_iterate
from modular_manifolds.linalg.matrices import MATRIX
from modular_manifolds.linalg.newton_schulz import iterate, schedule
from modular_manifolds.linalg.products import combined
from modular_manifolds.linalg.rows import ROWS, Rows


def retracted_within(w: Tensor, step: Tensor, length: float) -> Tensor:
    """`polar_factor_within` of `W + step`, by the Triton kernels if they can be used.

    The kernels divide by `√(1 + length²)`, after which `XᵀX` is within `length²/(1 + length²)` of I. They take as many
    cubic steps as reduce this to rounding.

    Args:
        w: shape (*batch, m, n), m ≥ n; W is orthonormal and the step is tangent.
        step: as `w`.
        length: a bound on the spectral norm of the step, finite, at least 0.
    """
    if resolve("auto", w) != "triton" or step.dtype is not w.dtype:
        return polar_factor_within(w + step, length)
    return stiefel_retract_by_kernels(
        w, step, length, _cubic_steps(length, torch.finfo(w.dtype).eps)
    )


@constant
def _cubic_steps(length: float, eps: float) -> int:
    deviation, steps = length**2 / (1 + length**2) + GRAM_MAX_DEVIATION, 0
    while deviation > eps / 2 and steps < MAX_TERMS:
        deviation, steps = 0.75 * deviation**2 + 0.25 * deviation**3, steps + 1
    return max(steps, 1)


def polar_factor_within(x: Tensor, length: float, rows: Rows = ROWS) -> Tensor:
    """The polar factor of `X = W + A`, for A tangent at the orthonormal W with `‖A‖₂ ≤ length`.

    `XᵀX = I + AᵀA` then lies between I and `(1 + length²) I`, and a few terms of `(I + E)^{-1/2}` in
    `E = XᵀX/(1 + length²/2) − I` are exact to rounding. If W is off the manifold by more than `GRAM_MAX_DEVIATION`,
    `E = XᵀX/‖XᵀX‖_F − I`: every singular value then comes closer to 1, as in a Newton–Schulz step, and repeated calls
    converge to the manifold.

    Args:
        x: shape (*batch, m, n), m ≥ n, or the rows of it in this process.
        length: finite, at least 0.
        rows: gives `XᵀX`.
    """
    columns = x.shape[-1]
    mean = 1 + length**2 / 2
    spread = (length**2 / 2 + GRAM_MAX_DEVIATION) / mean
    r = rows.gram(x)
    size = torch.linalg.vector_norm(r, dim=MATRIX, keepdim=True)
    is_near_manifold = size <= mean * (1 + spread) * math.sqrt(columns)
    scale = size.masked_fill_(is_near_manifold, mean)
    error = r / scale
    error.diagonal(dim1=-2, dim2=-1).sub_(1)
    coefficients = inverse_root_terms(spread, torch.finfo(x.dtype).eps / 4)
    # Horner: c₁ E + E (c₂ E + E (…)), the innermost product with its own factor.
    q, factor = error, coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        q, factor = combined(error, error, q, beta=coefficient, alpha=factor), 1.0
    return combined(x, x, q, beta=1.0, alpha=factor).mul_(scale.rsqrt())


GRAM_MAX_DEVIATION: Final = 1e-3
"""The spectral norm of `WᵀW − I` up to which the result is exact to rounding."""


@constant
def inverse_root_terms(spread: float, min_term: float) -> tuple[float, ...]:
    """`binom(−1/2, k)` for k = 1, 2, …: the terms of `(1 + e)^{-1/2} − 1` that exceed `min_term` if `|e| ≤ spread`."""
    return _terms(spread, min_term)


@functools.cache
def _terms(spread: float, min_term: float) -> tuple[float, ...]:
    terms = [-0.5]
    while abs(terms[-1]) * spread ** len(terms) > min_term and len(terms) < MAX_TERMS:
        k = len(terms)
        terms.append(terms[-1] * -(k + 0.5) / (k + 1))
    return tuple(terms[:-1]) if len(terms) > 1 else tuple(terms)


MAX_TERMS: Final = 24
"""The largest number of series terms or cubic steps. Steps longer than one radius would need more; they reach the manifold over
several calls."""


def polar_factor(x: Tensor) -> Tensor:
    """The polar factor to rounding, if every singular value is at least `MIN_RELATIVE_SINGULAR_VALUE · ‖X‖₂`.

    Smaller singular values come out between 0 and 1. Zero gives zero.

    Args:
        x: shape (*batch, m, n), m ≥ n, largest entry about 1.
    """
    polynomials = _polynomials(operator.index(x.shape[-1]))
    nearly_orthogonal, _ = gram_iterate(x, polynomials, steps_per_gram=1)
    return iterate(nearly_orthogonal, (NEWTON_SCHULZ_QUINTIC, NEWTON_SCHULZ_QUINTIC))


@constant
def _polynomials(columns: int) -> tuple[Polynomial, ...]:
    return schedule(1e-3, MIN_RELATIVE_SINGULAR_VALUE / columns**0.25)


MIN_RELATIVE_SINGULAR_VALUE: Final = 1e-4
"""The smallest singular value, relative to the largest, that `polar_factor` maps to 1."""
