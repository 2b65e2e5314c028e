"""The readable reference of the polynomial matrix sign iterations: each line of code is one line of maths."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from modular_manifolds.linalg.coefficients import NEWTON_SCHULZ_CUBIC, Polynomial
from modular_manifolds.linalg.polar_express import BF16_MARGIN, FLOAT32_MARGIN, polar_express
from modular_manifolds.linalg.symmetric import eye_like, sym

MAX_STEPS = 40
"""The largest number of steps; every accuracy that float64 can reach needs fewer."""


def iterate(x: Tensor, polynomials: Iterable[Polynomial]) -> Tensor:
    """`X ← X (aI + R(bI + cR))` with `R = XᵀX`, once for each polynomial; X of shape (*batch, m, n), m ≥ n.

    Each step maps every singular value σ to `aσ + bσ³ + cσ⁵` and leaves the singular vectors unchanged. The order
    of the products matters: b and c are large and of opposite sign, and in bfloat16 the rounding of `bR + cR²`
    would move singular values near 1 out of the range of the next polynomial.
    """
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    for a, b, c in polynomials:
        r = x.mT @ x
        x = x @ (a * eye + r @ (b * eye + c * r))
    return x


@functools.cache
def schedule(accuracy: float, floor: float, *, half: bool = False) -> tuple[Polynomial, ...]:
    """The shortest run of polynomials that brings all of [floor, 1] within `accuracy` of 1.

    `half` allows for bfloat16's rounding between steps. The run is computed on plain numbers, so the number of
    steps is known before any matrix is touched.
    """
    margin = BF16_MARGIN if half else FLOAT32_MARGIN
    steps = 0
    while polar_express(floor, steps, margin)[1] > accuracy and steps < MAX_STEPS:
        steps += 1
    return polar_express(floor, steps, margin)[0]


def nearly_orthogonal_to_orthogonal(x: Tensor) -> Tensor:
    """One cubic step `X ← 1.5 X − 0.5 X XᵀX`, which squares the distance from orthogonality."""
    return iterate(x, (NEWTON_SCHULZ_CUBIC,))


def inverse_root(r: Tensor, *, largest: float) -> Tensor:
    """`R^{-1/2}` to rounding, for symmetric R with all eigenvalues in [1, largest], by matrix products alone.

    Coupled Newton–Schulz on `R/largest`: `Q ← Q T, R ← T R T, T = (15 I − 10 R + 3 R²)/8`.
    The number of steps follows from `largest`.
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
