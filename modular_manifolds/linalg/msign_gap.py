"""A bound on the duality gap of `−msign(G)` that needs no singular values.

A is the result of odd polynomials p for `G/s`, with s at least the largest singular value, so `<G, A>` is the sum of
`σ p(σ/s)` and `‖A‖_F²` is the sum of `p(σ/s)²`. The polynomials bring every `σ ≥ f s`, f the floor, within ε of 1.
Below the floor, with `x = σ/s`, a singular value loses `x (1 − p(x))`, which is zero at x = 0 and has one maximum.
For γ ≥ 0 let `δ(γ)` be the largest `x (1 − p(x)) − γ p(x)²` on [0, f]. Summed over n singular values,

    ‖G‖_nuc ≤ (<G, A> + s (γ ‖A‖_F² + n δ(γ)))/(1 − ε).

With γ = 0 every singular value counts with the largest loss. If A has a low rank, `‖A‖_F²` is small, and a larger γ
gives a tighter bound.
"""

from __future__ import annotations

import functools
import operator
from typing import Final

import numpy as np
import torch
from torch import Tensor

from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.compilers import constant, plain
from modular_manifolds.linalg.matrices import MATRIX, divide_safely, readable, scale_exactly
from modular_manifolds.linalg.matrix_sign import msign_polynomials
from modular_manifolds.linalg.polar_express import mapped


def msign_gap(
    gradient: Tensor, direction: Tensor, *, accuracy: float, floor: float, unit: float = 1.0
) -> Tensor:
    """A bound on `1 − |<G, A>|/(u ‖G‖_nuc)` for `A = ± u msign(G, accuracy=ε, floor=…)`.

    It is computed from `<G, A>`, `‖A‖_F` and `‖G‖_F` (in place of the smaller s): passes over memory, no matrix
    product.

    Args:
        gradient: G, shape (*batch, m, n), of any finite size.
        direction: A, of the same shape.
        accuracy: ε, the accuracy that `msign` was called with.
        floor: the floor that `msign` was called with.
        unit: u.

    Returns:
        Shape (*batch), in float64; zero for a zero gradient. The bound holds if `msign` keeps its accuracy, which
        includes rounding.
    """
    size = torch.linalg.vector_norm(gradient, dim=MATRIX) if readable(gradient) else None
    if size is None or not bool(((size > SQUARES_MIN_NORM) & (size < 1 / SQUARES_MIN_NORM)).all()):
        # The bound does not depend on the scale of the gradient.
        gradient = scale_exactly(gradient)
        wide = gradient.dtype if size is None else torch.float64
        size = torch.linalg.vector_norm(gradient, dim=MATRIX, dtype=wide)
    descent, nuclear = nuclear_bounds(
        gradient, direction, size=size, accuracy=accuracy, floor=floor, unit=unit
    )
    return divide_safely(nuclear - descent, nuclear).clamp(0, 1)


def nuclear_bounds(
    x: Tensor, sign: Tensor, *, size: Tensor, accuracy: float, floor: float, unit: float = 1.0
) -> tuple[Tensor, Tensor]:
    """`|<X, A>|/u` and an upper bound on `‖X‖_nuc`, for `A = ± u msign(X, accuracy=ε, floor=…)`.

    Args:
        x: X and A, shape (*batch, m, n); the squares of X must stay in range.
        sign: as `x`.
        size: `‖X‖_F`, shape (*batch).
        accuracy: ε, the accuracy that `msign` was called with.
        floor: the floor that `msign` was called with.
        unit: u.

    Returns:
        Two tensors of shape (*batch), in float64.
    """
    descent = torch.einsum("...ij,...ij->...", x, sign).abs().double() / unit
    squared_norm = torch.linalg.vector_norm(sign, dim=MATRIX).double().square() / unit**2
    columns = operator.index(min(x.shape[-2:]))
    pairs = _gammas_and_deltas(plain(accuracy), plain(floor), columns, x.device.type)
    loss = _lost(squared_norm, columns, pairs)
    return descent, (descent + size * loss) / (1 - accuracy)


def gap_from_sums(
    descent: Tensor,
    squared_norm: Tensor,
    size: Tensor,
    *,
    accuracy: float,
    floor: float,
    columns: int,
    polynomials: tuple[Polynomial, ...],
) -> Tensor:
    """`msign_gap` from the three numbers of each matrix that it needs, for given polynomials.

    Args:
        descent: `|<G, A>|/u`.
        squared_norm: `‖A‖_F²/u²`.
        size: at least the largest singular value of G.
        accuracy: as in `msign_gap`.
        floor: as in `msign_gap`.
        columns: n, the number of singular values.
        polynomials: those of A.
    """
    # The floor is relative to the largest singular value; s is up to n^{1/4} times as large.
    loss = _lost(squared_norm, columns, _gammas_and_deltas_of(polynomials, floor / columns**0.25))
    nuclear = (descent + size * loss) / (1 - accuracy)
    return divide_safely(nuclear - descent, nuclear).clamp(0, 1)


def _lost(squared_norm: Tensor, columns: int, pairs: tuple[tuple[float, float], ...]) -> Tensor:
    losses = [gamma * squared_norm + columns * delta for gamma, delta in pairs]
    return torch.stack(losses).amin(dim=0)


SQUARES_MIN_NORM: Final = 1e-12
"""The smallest Frobenius norm at which the squares of all entries that matter are in range; the largest is its inverse."""

GAMMAS: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""The values of γ that are tried, in units of 4 δ(0), about one over the slope of p at zero. For rank one the best
is about √n/2."""


@constant
def _gammas_and_deltas(
    accuracy: float, floor: float, columns: int, device_type: str
) -> tuple[tuple[float, float], ...]:
    polynomials, _ = msign_polynomials(accuracy, floor, columns, device_type)
    # The floor is relative to the largest singular value; s is up to n^{1/4} times as large.
    return _gammas_and_deltas_of(polynomials, floor / columns**0.25)


@functools.cache
def _gammas_and_deltas_of(
    polynomials: tuple[Polynomial, ...], floor: float
) -> tuple[tuple[float, float], ...]:
    """Pairs (γ, δ(γ)); δ is the maximum over 4001 values of x, accurate to five digits."""
    x = np.geomspace(1e-6 * floor, floor, 4001)
    p = mapped(polynomials, x)
    loss = np.maximum(x * (1 - p), 0.0)
    gammas = [4 * multiple * float(loss.max()) for multiple in GAMMAS]
    return tuple((gamma, float((loss - gamma * p**2).max())) for gamma in gammas)
