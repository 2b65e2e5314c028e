"""The readable reference for polynomial matrix sign iterations: one line of code a line of maths."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from modular_manifolds.linalg.coefficients import NEWTON_SCHULZ_CUBIC, Polynomial
from modular_manifolds.linalg.polar_express import FULL, HALF, polar_express
from modular_manifolds.linalg.symmetric import eye_like, sym

LONGEST = 40
"""No stated accuracy within reach of float64 needs more steps than this."""


def iterate(x: Tensor, polynomials: Iterable[Polynomial]) -> Tensor:
    """`X ← X (aI + R(bI + cR))` with `R = XᵀX`, once for each polynomial; X of shape (*batch, m, n), m ≥ n.

    Each step maps every singular value σ to `aσ + bσ³ + cσ⁵` and leaves the singular vectors alone. In
    this order: b and c are large and of opposite sign, and a sum `bR + cR²` would lose in bfloat16 what
    keeps singular values near 1 from being thrown out of range.
    """
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    for a, b, c in polynomials:
        r = x.mT @ x
        x = x @ (a * eye + r @ (b * eye + c * r))
    return x


@functools.cache
def schedule(accuracy: float, floor: float, *, half: bool = False) -> tuple[Polynomial, ...]:
    """The shortest run of polynomials that brings all of [floor, 1] within `accuracy` of 1.

    `half` leaves room for the rounding of half precision between steps. Computed on singular values as plain
    numbers, so the number of steps is known before any matrix is touched.
    """
    room = HALF if half else FULL
    steps = 0
    while polar_express(floor, steps, room)[1] > accuracy and steps < LONGEST:
        steps += 1
    return polar_express(floor, steps, room)[0]


def nearly_orthogonal_to_orthogonal(x: Tensor) -> Tensor:
    """One cubic step `X ← 1.5 X − 0.5 X XᵀX`: squares the distance from orthogonality."""
    return iterate(x, (NEWTON_SCHULZ_CUBIC,))


def inverse_root(r: Tensor, *, largest: float) -> Tensor:
    """`R^{-1/2}` for symmetric R with all eigenvalues in [1, largest], by matrix products alone.

    Coupled Newton–Schulz on `R/largest`: `Q ← Q T, R ← T R T, T = (15 I − 10 R + 3 R²)/8`.
    The number of steps follows from `largest`; the error is at rounding level.
    """
    eye = eye_like(r)
    r, q = r / largest, eye / math.sqrt(largest)
    error = 1.0 - 1.0 / math.sqrt(largest)
    while error > 1e-17:
        t = (15 * eye - 10 * r + 3 * (r @ r)) / 8
        q, r = q @ t, sym(t @ r @ t)
        # 1 − p(1 − e) = 2.5 e³ − 1.875 e⁴ + 0.375 e⁵
        error = error**3 * (2.5 - 1.875 * error + 0.375 * error**2)
    return q
