"""The polar factor `X (XᵀX)^{-1/2}` by matrix products whose number is known beforehand: nothing is read on the host."""

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
from modular_manifolds.linalg.products import combined, gram_product


def retracted_within(w: Tensor, step: Tensor, length: float) -> Tensor:
    """`polar_factor_within` of `W + step`, by the Triton kernels if they can be used.

    The kernels divide by `√(1 + length²)` and take as many cubic steps as bring what a step of at most this length can
    leave, `length²/(1 + length²)` of `XᵀX`, to rounding.

    Args:
        w: shape (*batch, m, n), m ≥ n; W orthonormal and the step tangent.
        step: shape (*batch, m, n), m ≥ n; W orthonormal and the step tangent.
        length: a bound on the spectral norm of the step, finite, at least 0.
    """
    if resolve("auto", w) != "triton" or step.dtype is not w.dtype:
        return polar_factor_within(w + step, length)
    return stiefel_retract_by_kernels(
        w, step, length, _cubic_steps(length, torch.finfo(w.dtype).eps)
    )


@constant
def _cubic_steps(length: float, eps: float) -> int:
    deviation, steps = length**2 / (1 + length**2) + OFF, 0
    while deviation > eps / 2 and steps < LONGEST_SERIES:
        deviation, steps = 0.75 * deviation**2 + 0.25 * deviation**3, steps + 1
    return max(steps, 1)


def polar_factor_within(x: Tensor, length: float) -> Tensor:
    """The polar factor of `X = W + A`, A tangent at the orthonormal W and at most `length` long in the spectral norm.

    Then `XᵀX = I + AᵀA` lies between I and `(1 + length²) I`, and a few terms of `(I + E)^{-1/2}` in
    `E = XᵀX/(1 + length²/2) − I` are exact to rounding. If W is off the manifold by more than `OFF`, E is taken of `XᵀX/‖XᵀX‖_F`:
    every singular value then comes nearer to 1, by as much as in a Newton–Schulz step, and repeated calls land.

    Args:
        x: shape (*batch, m, n), m ≥ n.
        length: finite, at least 0.
    """
    columns = x.shape[-1]
    middle = 1 + length**2 / 2
    spread = (length**2 / 2 + OFF) / middle
    r = gram_product(x)
    size = torch.linalg.vector_norm(r, dim=MATRIX, keepdim=True)
    expected = size <= middle * (1 + spread) * math.sqrt(columns)
    scale = size.masked_fill_(expected, middle)
    e = r / scale
    e.diagonal(dim1=-2, dim2=-1).sub_(1)
    coefficients = _inverse_root_series(spread, torch.finfo(x.dtype).eps / 4)
    # Horner: c₁ E + E (c₂ E + E (…)), the innermost product with its own factor.
    q, factor = e, coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        q, factor = combined(e, e, q, beta=coefficient, alpha=factor), 1.0
    return combined(x, x, q, beta=1.0, alpha=factor).mul_(scale.rsqrt())


OFF: Final = 1e-3
"""How far `WᵀW` may be from I for the result to be exact to rounding."""


@constant
def _inverse_root_series(spread: float, least: float) -> tuple[float, ...]:
    return _terms(spread, least)


@functools.cache
def _terms(spread: float, least: float) -> tuple[float, ...]:
    """`binom(−1/2, k)` for k = 1, 2, …: the terms of `(1 + e)^{-1/2} − 1` that exceed `least` if `|e| ≤ spread`."""
    terms = [-0.5]
    while abs(terms[-1]) * spread ** len(terms) > least and len(terms) < LONGEST_SERIES:
        k = len(terms)
        terms.append(terms[-1] * -(k + 0.5) / (k + 1))
    return tuple(terms[:-1]) if len(terms) > 1 else tuple(terms)


LONGEST_SERIES: Final = 24
"""Steps of more than one radius would need more terms, and land over several calls."""


def polar_factor(x: Tensor) -> Tensor:
    """The polar factor of any X with singular values of at least `FLOOR` of the largest, to rounding.

    Smaller singular values come out between 0 and 1. Zero gives zero.

    Args:
        x: shape (*batch, m, n), m ≥ n, entries of size 1.
    """
    polynomials = _any_to_one(operator.index(x.shape[-1]))
    near, _ = gram_iterate(x, polynomials, together=1)
    return iterate(near, (NEWTON_SCHULZ_QUINTIC, NEWTON_SCHULZ_QUINTIC))


@constant
def _any_to_one(columns: int) -> tuple[Polynomial, ...]:
    return schedule(1e-3, FLOOR / columns**0.25)


FLOOR: Final = 1e-4
