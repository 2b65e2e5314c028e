"""The best run of odd polynomials of degree five for singular values in a given range."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from modular_manifolds.linalg.coefficients import NEWTON_SCHULZ_QUINTIC, Polynomial


@dataclass(frozen=True)
class Room:
    """The margins that a run of polynomials leaves for rounding.

    Args:
        cushion: every range but the first is made this much wider at both ends. The upper end is a fixed point
            of the whole run that rounding is pushed away from, twentyfold a step.
        lowest: a polynomial is made for a range that begins at least at this part of its end. The best one for a
            lower range brings some of the large singular values down to nearly nothing, a difference of large
            terms, whose rounding then turns their vectors.
    """

    cushion: float
    lowest: float


FULL: Final = Room(cushion=1.0001, lowest=0.01)
HALF: Final = Room(cushion=1.01, lowest=0.05)
"""For bfloat16. Without it up to a tenth of `<X, msign(X)>` was seen to be lost, and now and then all."""

CLOSE: Final = 1e-3
"""Within this of one the best polynomial is Newton–Schulz's, to all digits that matter."""


@functools.cache
def polar_express(
    floor: float, steps: int, room: Room = FULL
) -> tuple[tuple[Polynomial, ...], float]:
    """`steps` polynomials that bring all of [floor, 1] near to 1, and how near that is.

    Each is the minimax approximation of 1 by `a x + b x³ + c x⁵` on the range that the one before left, but
    for the room. Amsel et al. prove that without it no composition of the same degrees does better.

    Source: Amsel, Persson, Musco, Gower, "The Polar Express" (2025, arXiv 2505.16932), theorem 3.1.
    """
    run: list[Polynomial] = []
    low, high = floor, 1.0
    off = 1.0 - floor
    for _ in range(steps):
        if max(1.0 - low, high - 1.0) <= CLOSE:
            polynomial = NEWTON_SCHULZ_QUINTIC
            above = abs(1.0 - _at(polynomial, high))
        else:
            polynomial, above = _minimax(max(low, room.lowest * high), high)
        run.append(polynomial)
        off = max(above, 1.0 - _at(polynomial, low))
        cushion = room.cushion if off > CLOSE else 1.0
        low, high = (1.0 - off) / cushion, (1.0 + above) * cushion
    return tuple(run), off


@functools.cache
def lowered(
    run: tuple[Polynomial, ...], floor: float, accuracy: float, room: Room
) -> tuple[Polynomial, ...]:
    """`run` and the polynomials that must follow it to bring all of [floor, 1] within `accuracy` of 1.

    Each polynomial is the best one for the range that those before it left.
    """
    reached = mapped(run, np.geomspace(floor, 1.0, 4001))
    low, high = float(reached.min()), float(reached.max())
    off = max(1.0 - low, high - 1.0)
    if off <= accuracy:
        return run
    if off <= CLOSE:
        following = NEWTON_SCHULZ_QUINTIC
    else:
        low, high = low / room.cushion, high * room.cushion
        following, _ = _minimax(max(low, room.lowest * high), high)
    return lowered((*run, following), floor, accuracy, room)


def mapped(run: tuple[Polynomial, ...], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """These singular values after the run."""
    for a, b, c in run:
        values = a * values + b * values**3 + c * values**5
    return values


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
