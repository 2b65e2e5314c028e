"""How much steeper than `−msign(G)` a direction can be, from what its polynomials promise.

A is the result of odd polynomials p for `G/s`, with s at least the largest singular value, so `<G, A>` is the sum of
`σ p(σ/s)` and `‖A‖_F²` that of `p(σ/s)²`. They bring every `σ ≥ f s`, f the floor, within ε of 1. Below, with
`x = σ/s`, a singular value loses `x (1 − p(x))`, a bump that returns to zero at zero. For γ ≥ 0 let `δ(γ)` be the largest
`x (1 − p(x)) − γ p(x)²` on [0, f]. Summed over n singular values,

    ‖G‖_nuc ≤ (<G, A> + s (γ ‖A‖_F² + n δ(γ)))/(1 − ε).

γ = 0 takes the top of the bump n times. If A has a low rank, `‖A‖_F²` says so, and a larger γ is nearer.
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
from modular_manifolds.linalg.matrices import MATRIX, divide_safely, near_one, readable
from modular_manifolds.linalg.msign import msign_polynomials
from modular_manifolds.linalg.polar_express import mapped


def msign_gap(
    gradient: Tensor, direction: Tensor, *, accuracy: float, floor: float, unit: float = 1.0
) -> Tensor:
    """A bound on `1 − |<G, A>|/(u ‖G‖_nuc)` for `A = ± u msign(G, accuracy=ε, floor=…)`.

    Takes `<G, A>` and two Frobenius norms, `‖G‖_F` in place of the smaller s: passes over
    memory, no product of matrices.

    Args:
        gradient: G, shape (*batch, m, n), of any finite size.
        direction: A, of the same shape.
        accuracy: those that `msign` was called with.
        floor: those that `msign` was called with.
        unit: u.

    Returns:
        Shape (*batch), in float64; zero for a zero gradient. As true as the promise of `msign`, whose accuracy
        counts rounding in.
    """
    size = torch.linalg.vector_norm(gradient, dim=MATRIX) if readable(gradient) else None
    if size is None or not bool(((size > SAFE) & (size < 1 / SAFE)).all()):
        # The bound does not depend on the size of the gradient.
        gradient = near_one(gradient)
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
        x: X and A, shape (*batch, m, n), X of a size whose squares stay in range.
        sign: X and A, shape (*batch, m, n), X of a size whose squares stay in range.
        size: `‖X‖_F`, shape (*batch).
        accuracy: as in `msign_gap`.
        floor: as in `msign_gap`.
        unit: as in `msign_gap`.

    Returns:
        Two tensors of shape (*batch), in float64.
    """
    descent = torch.einsum("...ij,...ij->...", x, sign).abs().double() / unit
    reached = torch.linalg.vector_norm(sign, dim=MATRIX).double().square() / unit**2
    columns = operator.index(min(x.shape[-2:]))
    lines = _lines(plain(accuracy), plain(floor), columns, x.device.type)
    lost = torch.stack([gamma * reached + columns * delta for gamma, delta in lines]).amin(dim=0)
    return descent, (descent + size * lost) / (1 - accuracy)


SAFE: Final = 1e-12
"""The least length at which the squares of all entries that matter are in range; the largest is its inverse."""

SLOPES: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""The γ that are tried, in units of 4 δ(0), which is about one over the slope of p at zero. For rank one the best
is near √n/2."""


@constant
def _lines(
    accuracy: float, floor: float, columns: int, device_type: str
) -> tuple[tuple[float, float], ...]:
    polynomials, _ = msign_polynomials(accuracy, floor, columns, device_type)
    # Its floor is a part of the largest singular value, not of s.
    return _lines_of(polynomials, floor / columns**0.25)


@functools.cache
def _lines_of(polynomials: tuple[Polynomial, ...], floor: float) -> tuple[tuple[float, float], ...]:
    """Pairs (γ, δ(γ)), each δ from 4001 values of x, which settles it to five digits."""
    x = np.geomspace(1e-6 * floor, floor, 4001)
    p = mapped(polynomials, x)
    lost = np.maximum(x * (1 - p), 0.0)
    gammas = [4 * slope * float(lost.max()) for slope in SLOPES]
    return tuple((gamma, float((lost - gamma * p**2).max())) for gamma in gammas)
