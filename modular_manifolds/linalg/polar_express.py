"""The best run of odd polynomials of degree five for singular values in a given range."""

from __future__ import annotations

import functools
import math
from typing import Final

import numpy as np

from modular_manifolds.linalg.coefficients import NEWTON_SCHULZ_QUINTIC, Polynomial

CUSHION: Final = 1.02
"""In half precision every range but the first is made this much wider at both ends, so that rounding cannot
push a singular value past where the next polynomial is stable. The paper's own 1.01 was seen to diverge in
bfloat16 on singular values that fall evenly over three decades."""

CLOSE: Final = 1e-3
"""Within this of one the best polynomial is Newton–Schulz's, to all digits that matter."""


@functools.cache
def polar_express(floor: float, steps: int, cushion: float) -> tuple[tuple[Polynomial, ...], float]:
    """`steps` polynomials that bring all of [floor, 1] as near to 1 as any can, and how near that is.

    Each is the minimax approximation of 1 by `a x + b x³ + c x⁵` on the range that the one before left;
    Amsel et al. prove that no composition of the same degrees does better.

    Source: Amsel, Persson, Musco, Gower, "The Polar Express" (2025, arXiv 2505.16932), theorem 3.1.
    """
    run: list[Polynomial] = []
    low, high = floor, 1.0
    for _ in range(steps):
        if max(1.0 - low, high - 1.0) <= CLOSE:
            polynomial = NEWTON_SCHULZ_QUINTIC
            ends = [_at(polynomial, low), _at(polynomial, high)]
            error = max(abs(1.0 - value) for value in ends)
        else:
            polynomial, error = _minimax(low, high)
        run.append(polynomial)
        low, high = (1.0 - error) / cushion, (1.0 + error) * cushion
    return tuple(run), error if steps else 1.0 - floor


def _minimax(low: float, high: float) -> tuple[Polynomial, float]:
    """Remez's exchange: the error alternates at the two ends and at two extrema between."""
    inner = np.array([0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high])
    error = math.inf
    while True:
        nodes = np.array([low, *inner, high])
        system = np.column_stack((nodes, nodes**3, nodes**5, (1.0, -1.0, 1.0, -1.0)))
        a, b, c, level = np.linalg.solve(system, np.ones(4))
        # The levels of the exchange rise to the minimax error.
        if abs(abs(level) - error) <= 1e-14:
            return (float(a), float(b), float(c)), float(abs(level))
        error = abs(level)
        root = math.sqrt(9.0 * b * b - 20.0 * a * c)
        inner = np.sqrt(np.array([-3.0 * b - root, -3.0 * b + root]) / (10.0 * c))


def _at(polynomial: Polynomial, x: float) -> float:
    a, b, c = polynomial
    return a * x + b * x**3 + c * x**5
