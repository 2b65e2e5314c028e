"""The best run of odd polynomials of degree five for singular values in a range."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from modular_manifolds.linalg.coefficients import NEWTON_SCHULZ_QUINTIC, Polynomial


@dataclass(frozen=True)
class RoundingMargin:
    """The margins that a run of polynomials leaves for rounding.

    Args:
        cushion: the factor by which every range but the first is widened at both ends. The upper end is a repelling
            fixed point of the run: a rounding error there grows twentyfold a step.
        min_ratio: the smallest ratio of lower to upper end for which a polynomial is computed. The best polynomial
            for a lower ratio maps some large singular values to nearly zero. These are differences of large terms,
            whose rounding turns the singular vectors.
    """

    cushion: float
    min_ratio: float


FLOAT32_MARGIN: Final = RoundingMargin(cushion=1.0001, min_ratio=0.01)
BF16_MARGIN: Final = RoundingMargin(cushion=1.01, min_ratio=0.05)
"""Without this margin bfloat16 lost up to a tenth of `<X, msign(X)>` in measurements, and sometimes all of it."""

NEWTON_SCHULZ_MAX_DISTANCE: Final = 1e-3
"""The distance of the range from 1 up to which the Newton–Schulz polynomial is as good as the best one."""


@functools.cache
def polar_express(
    floor: float, steps: int, margin: RoundingMargin = FLOAT32_MARGIN
) -> tuple[tuple[Polynomial, ...], float]:
    """`steps` polynomials that map all of [floor, 1] close to 1, and the largest distance from 1 that is left.

    Each is the minimax approximation of 1 by `a x + b x³ + c x⁵` on the image of the polynomial before it, widened
    by the margin. Amsel et al. prove that without the margin no composition of the same degrees does better.

    Source: Amsel, Persson, Musco, Gower, "The Polar Express" (2025, arXiv 2505.16932), theorem 3.1.
    """
    run: list[Polynomial] = []
    low, high = floor, 1.0
    distance = 1.0 - floor
    for _ in range(steps):
        if max(1.0 - low, high - 1.0) <= NEWTON_SCHULZ_MAX_DISTANCE:
            polynomial = NEWTON_SCHULZ_QUINTIC
            excess = abs(1.0 - _at(polynomial, high))
        else:
            polynomial, excess = _minimax(max(low, margin.min_ratio * high), high)
        run.append(polynomial)
        distance = max(excess, 1.0 - _at(polynomial, low))
        cushion = margin.cushion if distance > NEWTON_SCHULZ_MAX_DISTANCE else 1.0
        low, high = (1.0 - distance) / cushion, (1.0 + excess) * cushion
    return tuple(run), distance


@functools.cache
def extended(
    run: tuple[Polynomial, ...], floor: float, accuracy: float, margin: RoundingMargin
) -> tuple[Polynomial, ...]:
    """`run`, extended by the polynomials that bring all of [floor, 1] within `accuracy` of 1.

    Each polynomial is the best one for the image of those before it.
    """
    values = mapped(run, np.geomspace(floor, 1.0, 4001))
    low, high = float(values.min()), float(values.max())
    distance = max(1.0 - low, high - 1.0)
    if distance <= accuracy:
        return run
    if distance <= NEWTON_SCHULZ_MAX_DISTANCE:
        following = NEWTON_SCHULZ_QUINTIC
    else:
        low, high = low / margin.cushion, high * margin.cushion
        following, _ = _minimax(max(low, margin.min_ratio * high), high)
    return extended((*run, following), floor, accuracy, margin)


def mapped(run: tuple[Polynomial, ...], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The singular values `values` after all polynomials of the run."""
    for a, b, c in run:
        values = a * values + b * values**3 + c * values**5
    return values


def _minimax(low: float, high: float) -> tuple[Polynomial, float]:
    """The minimax polynomial on [low, high] and its error, by Remez's exchange with two inner extrema."""
    inner = np.array([0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high])
    error = math.inf
    while True:
        nodes = np.array([low, *inner, high])
        system = np.column_stack((nodes, nodes**3, nodes**5, (1.0, -1.0, 1.0, -1.0)))
        a, b, c, level = np.linalg.solve(system, np.ones(4))
        # The levels of the exchange increase to the minimax error.
        if abs(abs(level) - error) <= 1e-14:
            return (float(a), float(b), float(c)), float(abs(level))
        error = abs(level)
        root = math.sqrt(9.0 * b * b - 20.0 * a * c)
        inner = np.sqrt(np.array([-3.0 * b - root, -3.0 * b + root]) / (10.0 * c))


def _at(polynomial: Polynomial, x: float) -> float:
    a, b, c = polynomial
    return a * x + b * x**3 + c * x**5
