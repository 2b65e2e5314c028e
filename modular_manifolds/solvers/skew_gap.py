"""A bound on the duality gap of a skew direction, without singular values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from modular_manifolds.linalg.backend import Bound
from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.newton_schulz import Reach


@dataclass(frozen=True)
class SkewGap:
    """A bound on `‖Γ‖_nuc` if polynomials p were applied to Γ/s, made for singular values from f on.

    Every `σ ≥ f s` comes within δ of 1, and within `ε = 3δ²/2` after a cubic step. The smaller ones lose at
    most `c s` each, c the largest `σ (1 − p(σ))` below f; and at most `μ s Σ (1 − p²)` together, μ the largest
    `σ/(1 + p(σ))`, with `Σ (1 − p²) ≤ k (1 + δ)² − ‖Ω‖_F²` for Γ of rank k. So
    `‖Γ‖_nuc ≤ (<Γ, Ω> + lost)/(1 − ε)`.

    Args:
        share, each: μ and c.
        deviation: δ.
        turned: the share of the descent that rounding may cost by turning singular vectors.
        squares: the largest `‖Ω‖_F²`, of singular values that all came to 1.
        rank: k.
    """

    share: float
    each: float
    deviation: float
    turned: float
    squares: float
    rank: int

    @classmethod
    def of(
        cls,
        polynomials: tuple[Polynomial, ...],
        floor: float,
        *,
        rank: int,
        columns: int,
        dtype: torch.dtype,
        half: bool,
    ) -> SkewGap:
        """For polynomials made for singular values from `floor` on, applied to Γ of shape (columns, columns) in `dtype`."""
        reach = Reach.of(polynomials, floor)
        deviation = reach.off + (HALF_DEVIATION if half else 0.0)
        # What Γ does not have is rounding, and p has magnified it.
        noise = 16.0 * torch.finfo(dtype).eps / floor
        squares = rank * (1 + deviation) ** 2 + (columns - rank) * noise**2
        turned = HALF_TURNED if half else 0.0
        return cls(reach.share, reach.each, deviation, turned, squares, rank)

    def of_direction(
        self, length: Number, size: Number, along: Number, attained: Number | None
    ) -> Number:
        """The relative gap, for plain numbers or for tensors of one number a matrix; of a zero Γ it means nothing.

        Args:
            length: `‖Ω‖_F` before the cubic step.
            size: s of 2Γ.
            along: `<G, A>` in units of Γ.
            attained: `<Γ, Ω>` after the cubic step; `−<G, A>` if None.
        """
        share, each = self.share / 2, self.rank * self.each / 2
        missing = _subtract(share * self.squares, length * length, share)
        lost = _clip(missing, 0.0, each) * size
        nuclear = lost - along if attained is None else lost + attained
        kept = 1 - 1.5 * self.deviation**2
        return along * kept / nuclear + (1 + self.turned)

    def numbers(self, rounding: float, least: float) -> Bound:
        """The numbers of `of_direction` for the kernels.

        Args:
            rounding: `rounding/s` is added to the gap.
            least: up to this s there is no direction.
        """
        share, each = self.share / 2, self.rank * self.each / 2
        kept = 1 - 1.5 * self.deviation**2
        return Bound(share, self.squares, each, kept, 1 + self.turned, rounding, least)


Number = TypeVar("Number", float, Tensor)


def _subtract(x: float, y: Number, factor: float) -> Number:
    """`x − factor · y`."""
    return torch.rsub(y, x, alpha=factor) if isinstance(y, Tensor) else x - factor * y


def _clip(x: Number, low: float, high: float) -> Number:
    return x.clamp(low, high) if isinstance(x, Tensor) else min(max(x, low), high)


HALF_DEVIATION = 0.02
"""What rounding in bfloat16 may add to the distance of a singular value from 1; the cubic step squares that."""
HALF_TURNED = 2e-3
"""What it may cost of the descent. Seen on matrices of low rank, of singular values that fall evenly or by a
power, and Gaussian ones: at most 1e-3."""
