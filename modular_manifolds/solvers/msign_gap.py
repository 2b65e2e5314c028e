"""How much steeper than `−msign(G)` a direction can be, from what its polynomials promise.

A is what odd polynomials p make of `G/s`, with s at least the largest singular value, so `<G, A>` is the sum of
`σ p(σ/s)` and `‖A‖_F²` that of `p(σ/s)²`. They bring every `σ ≥ f s`, f the floor, within ε of 1. Below, with
`x = σ/s`, a singular value loses `x (1 − p(x))`, a bump that returns to zero at zero. For γ ≥ 0 let `δ(γ)` be the largest
`x (1 − p(x)) − γ p(x)²` on [0, f]. Summed over n singular values,

    ‖G‖_nuc ≤ (<G, A> + s (γ ‖A‖_F² + n δ(γ)))/(1 − ε).

γ = 0 takes the top of the bump n times. Where A has a low rank, `‖A‖_F²` says so, and a larger γ is nearer.
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import torch
from torch import Tensor

from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.matrices import MATRIX, divide_safely, near_one
from modular_manifolds.linalg.msign import msign_polynomials


def msign_gap(
    gradient: Tensor, direction: Tensor, *, accuracy: float, floor: float, unit: float = 1.0
) -> Tensor:
    """A bound on `1 − |<G, A>|/(u ‖G‖_nuc)` for `A = ± u msign(G, accuracy=ε, floor=…)`.

    Takes `<G, A>` and two Frobenius norms, `‖G‖_F` in place of the smaller s: passes over
    memory, no product of matrices.

    Args:
        gradient: G, shape (*batch, m, n), of any finite size.
        direction: A, of the same shape.
        accuracy, floor: those that `msign` was called with.
        unit: u.

    Returns:
        Shape (*batch), in float64; zero for a zero gradient. As true as the promise of `msign`, whose accuracy
        counts rounding in.
    """
    size = torch.linalg.vector_norm(gradient, dim=MATRIX)
    if not bool(((size > SAFE) & (size < 1 / SAFE)).all()):
        # The bound does not depend on the size of the gradient.
        gradient = near_one(gradient)
        size = torch.linalg.vector_norm(gradient, dim=MATRIX, dtype=torch.float64)
    descent = torch.einsum("...ij,...ij->...", gradient, direction).abs().double() / unit
    reached = torch.linalg.vector_norm(direction, dim=MATRIX).double().square() / unit**2
    columns = min(gradient.shape[-2:])
    polynomials, _ = msign_polynomials(accuracy, floor, columns, gradient.device.type)
    # Its floor is a part of the largest singular value, not of s.
    lines = _lines(polynomials, floor / columns**0.25)
    lost = torch.stack([gamma * reached + columns * delta for gamma, delta in lines]).amin(dim=0)
    nuclear = (descent + size * lost) / (1 - accuracy)
    return divide_safely(nuclear - descent, nuclear).clamp(0, 1)


SAFE: Final = 1e-12
"""Of a length between this and its inverse the squares of all entries that matter are in range."""

SLOPES: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""The γ that are tried, in units of 4 δ(0), which is about one over the slope of p at zero. For rank one the best
is near √n/2."""


@functools.cache
def _lines(polynomials: tuple[Polynomial, ...], floor: float) -> tuple[tuple[float, float], ...]:
    """Pairs (γ, δ(γ)), each δ from 4001 values of x, which settles it to five digits."""
    x = np.geomspace(1e-6 * floor, floor, 4001)
    p = x
    for a, b, c in polynomials:
        p = a * p + b * p**3 + c * p**5
    lost = np.maximum(x * (1 - p), 0.0)
    gammas = [4 * slope * float(lost.max()) for slope in SLOPES]
    return tuple((gamma, float((lost - gamma * p**2).max())) for gamma in gammas)
