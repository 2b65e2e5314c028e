"""Zolotarev's rational functions: the best odd ones for the signs of singular values in a range."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RationalSign:
    """`h(σ) = M σ (1 + Σ_j a_j t_j² / (1 + t_j² σ²))`, between `lowest` and 1 for σ in [floor, 1], and below 1 under the floor.

    Among the odd functions of its degree it has the largest `lowest`.

    Args:
        floor: the lower end of the range.
        scale: M.
        poles: t_j, rising.
        weights: a_j, positive.
        lowest: the smallest value on [floor, 1].

    Source: Nakatsukasa and Freund, "Computing Fundamental Matrix Decompositions Accurately via the Matrix Sign Function
    in Two Iterations: The Power of Zolotarev's Functions" (2016), section 3, in partial fractions.
    """

    floor: float
    scale: float
    poles: tuple[float, ...]
    weights: tuple[float, ...]
    lowest: float

    @classmethod
    @functools.cache
    def of_degree(cls, floor: float, terms: int) -> RationalSign:
        """The best function with this number of poles for [floor, 1], 0 < floor < 1."""
        order = 2 * terms + 1
        tangents = [_elliptic_tangent(i / order, floor) for i in range(1, order)]
        squares = [(floor * each) ** 2 for each in tangents]
        roots, zeros = squares[::2], squares[1::2]
        weights: list[float] = []
        for j, root in enumerate(roots):
            weight = zeros[j] - root
            for k, (other, zero) in enumerate(zip(roots, zeros, strict=True)):
                if k != j:
                    weight *= (zero - root) / (other - root)
            weights.append(weight)
        poles = [root**-0.5 for root in roots]
        unscaled = cls(floor, 1.0, tuple(poles[::-1]), tuple(weights[::-1]), 0.0)
        values = unscaled(np.geomspace(floor, 1.0, 4001))
        largest, lowest = float(values.max()), float(values.min())
        return cls(floor, 1 / largest, unscaled.poles, unscaled.weights, lowest / largest)

    @classmethod
    def within(cls, floor: float, distance: float) -> RationalSign:
        """The function of the lowest degree whose values on [floor, 1] are at least `1 − distance`."""
        for terms in range(1, MAX_TERMS):
            found = cls.of_degree(floor, terms)
            if found.lowest >= 1 - distance:
                return found
        return cls.of_degree(floor, MAX_TERMS)

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.ones_like(values)
        for pole, weight in zip(self.poles, self.weights, strict=True):
            total += weight * pole**2 * resolvent(values, pole)
        return self.scale * values * total


def resolvent(values: NDArray[np.float64], pole: float) -> NDArray[np.float64]:
    """`1/(1 + t²σ²)`, the eigenvalues of the symmetric part of `(I + tX)⁻¹` for skew X."""
    return 1 / (1 + (pole * values) ** 2)


MAX_TERMS = 16
"""The largest number of poles: 16 bring all of [1e-8, 1] within 1e-5 of 1."""


def _elliptic_tangent(share: float, modulus: float) -> float:
    """Jacobi's `sn(u)/cn(u)` at `u = share · K`, for the modulus `√(1 − modulus²)` and its quarter period K.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 16.4: by the arithmetic-geometric mean.
    """
    ratios: list[float] = []
    a, b = 1.0, modulus
    while a - b > 1e-15 * a:
        a, b, c = (a + b) / 2, math.sqrt(a * b), (a - b) / 2
        ratios.append(c / a)
    angle = 2 ** len(ratios) * share * math.pi / 2
    for ratio in reversed(ratios):
        angle = (angle + math.asin(ratio * math.sin(angle))) / 2
    return math.tan(angle)
