"""Odd polynomials on a skew matrix, and a bound on what they leave of its nuclear norm."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from modular_manifolds.linalg.backend import Bound, skew_msign_by_kernels
from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.matrices import MATRIX, inner
from modular_manifolds.linalg.polar_express import mapped
from modular_manifolds.linalg.products import (
    SYMMETRY_MIN_COLUMNS,
    combined,
    commuting,
    commuting_combined,
    gram_product,
    multiply,
)


def skew_iterate(
    x: Tensor,
    polynomials: Sequence[Polynomial],
    *,
    half: bool = False,
    kernels: bool = False,
) -> tuple[Tensor, Tensor]:
    """Apply odd polynomials to the singular values of the skew `X/s`, `s = ‖X²‖_F^{1/2}`.

    `X ← (aI + R(bI + cR)) X` with `R = XXᵀ = −X²`, once for each polynomial. s is at least the largest singular value and
    at most `n^{1/4}` times that.

    Args:
        x: shape (*batch, n, n), skew; entries of size 1, so that squares neither overflow nor vanish.
        polynomials: in order, at least one.
        half: products in bfloat16; the polynomials must leave room for its rounding.
        kernels: by the Triton kernels; this function without them is their specification.

    Returns:
        The result, exactly skew and in the dtype of X, and s of shape (*batch, 1, 1). A zero X has s = 0 and no result: NaN,
        but zero by the kernels.
    """
    if x.dim() > 3:
        result, size = skew_iterate(x.flatten(0, -3), polynomials, half=half, kernels=kernels)
        return result.reshape(x.shape), size.reshape(*x.shape[:-2], 1, 1)
    if kernels:
        result, size = skew_msign_by_kernels(x, _halved(polynomials), half=half)
        return result - result.mT, size
    begun = SkewRun.begin(x, polynomials[:-1], half=half)
    return begun.end(polynomials[-1:]), begun.size


@dataclass(frozen=True)
class SkewRun:
    """A run of `skew_iterate` without kernels before its end, which may depend on how far it has come.

    Args:
        start: `X₀/s`, shape (*batch, n, n), in bfloat16 if products are.
        x: X after the polynomials so far.
        square: X².
        size: s of shape (*batch, 1, 1), in the dtype of X₀.
    """

    start: Tensor
    x: Tensor
    square: Tensor
    size: Tensor

    @classmethod
    def begin(
        cls, x: Tensor, polynomials: Sequence[Polynomial], *, half: bool, border: int = 0
    ) -> SkewRun:
        """Apply polynomials to X/s, at least one if `border` is not zero.

        Args:
            border: X is zero in the block of its last `border` rows and columns.
        """
        dtype = x.dtype
        x = x.to(torch.bfloat16) if half else x
        border = border if _mirrors(x, border) else 0
        square = _bordered_square(x, border) if border else _negative_gram(x)
        length = torch.linalg.vector_norm(square, dim=MATRIX, keepdim=True, dtype=dtype)
        size = length.sqrt()
        start, square = x / size.to(x.dtype), square / length.to(x.dtype)
        x = start
        for polynomial in polynomials:
            x = _step(x, square, polynomial, border=border)
            square, border = _negative_gram(x), 0
        return cls(start, x, square, size)

    def descent(self) -> Tensor:
        """`<X₀/s, X>`, shape (*batch, 1, 1)."""
        return inner(self.start, self.x).to(self.size.dtype)

    def missing(self) -> Tensor:
        """`‖I + X²‖_F²`, shape (*batch, 1, 1): how many singular values are not near 1, and a little more."""
        trace, square = (
            torch.linalg.vector_norm(each, dim=MATRIX, keepdim=True, dtype=self.size.dtype).square()
            for each in (self.x, self.square)
        )
        return square - 2 * trace + self.x.shape[-1]

    def end(self, polynomials: Sequence[Polynomial]) -> Tensor:
        """The result of the whole run with these polynomials at its end, at least one: exactly skew."""
        first, *others = _halved(polynomials)
        x = _step(self.x, self.square, first)
        for polynomial in others:
            x = _step(x, _negative_gram(x), polynomial)
        x = x.to(self.size.dtype)
        return x - x.mT


def _halved(polynomials: Sequence[Polynomial]) -> tuple[Polynomial, ...]:
    """The same run with half the result: the skew part of 2X is `X − Xᵀ`."""
    a, b, c = polynomials[-1]
    return (*polynomials[:-1], (a / 2, b / 2, c / 2))


def _negative_gram(x: Tensor) -> Tensor:
    """`X² = −XXᵀ`, symmetric.

    Rounding puts a symmetric part into X. In the map of X² it grows as singular values near zero do, not more, since the map
    is analytic. In bfloat16 it would grow too large: the Gram matrix is symmetric whatever X is.
    """
    if x.dtype is torch.bfloat16:
        return multiply(x, x.mT).neg_()
    return commuting(x, x)


def _mirrors(x: Tensor, columns: int) -> bool:
    """Whether products of so many columns mirror blocks; a stack in float32 is quicker without."""
    return x.dim() == 2 and x.dtype is not torch.bfloat16 and columns >= SYMMETRY_MIN_COLUMNS


def _step(x: Tensor, square: Tensor, polynomial: Polynomial, *, border: int = 0) -> Tensor:
    if x.dtype is torch.bfloat16:
        return _step_in_half(x, square, polynomial)
    a, b, c = polynomial
    even = commuting_combined(square, square, square, beta=-b, alpha=c)
    if _mirrors(x, x.shape[-1]):
        # A mirrored product must be skew, so `aI` is added before it.
        even.diagonal().add_(a)
        return _bordered_product(even, x, border) if border else commuting(even, x, sign=-1)
    return combined(x, x, even, beta=a, alpha=1.0)


def _bordered_square(x: Tensor, border: int) -> Tensor:
    """`X² = [[S² − RᵀR, −S Rᵀ], [R S, −R Rᵀ]]` of `X = [[S, −Rᵀ], [R, 0]]`: the zeros are not multiplied."""
    s, r = x[:-border, :-border], x[-border:, :-border]
    first = commuting(s, s).sub_(gram_product(r))
    return _from_blocks(first, multiply(r, s), commuting(r, r.mT).neg_(), sign=1)


def _bordered_product(even: Tensor, x: Tensor, border: int) -> Tensor:
    """`P X = [[P₁₁ S + P₁₂ R, −(R P₁₁)ᵀ], [R P₁₁, R P₁₂]]` for P a polynomial in X²."""
    r, above = x[-border:, :-border], even[:-border]
    first = commuting(above, x[:, :-border], sign=-1)
    below, last = multiply(r, above[:, :-border]), commuting(r, above[:, -border:], sign=-1)
    return _from_blocks(first, below, last, sign=-1)


def _from_blocks(first: Tensor, below: Tensor, last: Tensor, *, sign: int) -> Tensor:
    """`[[first, ± belowᵀ], [below, last]]`."""
    right = below.mT if sign > 0 else -below.mT
    return torch.cat((torch.cat((first, right), dim=-1), torch.cat((below, last), dim=-1)))


def _step_in_half(x: Tensor, square: Tensor, polynomial: Polynomial) -> Tensor:
    """The same with rounding only after sums: `aI + R(bI + cR)` is near 1 if singular values are, its terms are not."""
    a, b, c = polynomial
    even = square * -c
    even.diagonal(dim1=-2, dim2=-1).add_(b)
    even = commuting(square, even).neg_()
    even.diagonal(dim1=-2, dim2=-1).add_(a)
    return commuting(even, x, sign=-1)


@dataclass(frozen=True)
class SkewGap:
    """A bound on `‖Γ‖_nuc` if polynomials p and a cubic step were applied to Γ/s, made for singular values from f on.

    The cubic step leaves `σ (1 − p)² (1 + p/2)` of each singular value. Every `σ ≥ f s` comes within δ of 1, and within
    `ε = δ² (3 + δ)/2` after that step. The smaller ones lose at most `c s` each, c the most that one below f loses; and at
    most `μ s Σ ((1 + δ)² − p²)` together, μ the largest loss of one over its term, with
    `Σ ((1 + δ)² − p²) ≤ k (1 + δ)² − ‖Ω‖_F²` for Γ of rank k. So `‖Γ‖_nuc ≤ (<Γ, Ω> + lost)/(1 − ε)`.

    Args:
        share: μ.
        each: c.
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
    @functools.cache
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
        below, above = np.linspace(0.0, floor, 2001), np.geomspace(floor, 1.0, 4001)
        rounding = HALF_DEVIATION if half else 0.0
        deviation = float(np.abs(1.0 - mapped(polynomials, above)).max()) + rounding
        # What Γ does not have is rounding, and p has magnified it.
        noise = 16.0 * torch.finfo(dtype).eps / floor
        # Rounding may leave a singular value below what p makes of it, and then it loses more.
        reached = np.minimum(mapped(polynomials, below), 1.0 + deviation) - (rounding + noise)
        lost = below * (1.0 - reached) ** 2 * (1.0 + reached / 2)
        return cls(
            share=float((lost / ((1 + deviation) ** 2 - reached**2)).max()),
            each=float(lost.max()),
            deviation=deviation,
            turned=HALF_TURNED if half else 0.0,
            squares=rank * (1 + deviation) ** 2 + (columns - rank) * noise**2,
            rank=rank,
        )

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
        return along * self._min_mapped_value / nuclear + (1 + self.turned)

    @property
    def _min_mapped_value(self) -> float:
        """`1 − ε`, a lower bound on the singular values of Ω above the floor, after the cubic step."""
        return 1 - self.deviation**2 * (3 + self.deviation) / 2

    def numbers(self, rounding: float, least: float) -> Bound:
        """The numbers of `of_direction` for the kernels.

        Args:
            rounding: `rounding/s` is added to the gap.
            least: up to this s there is no direction.
        """
        share, each = self.share / 2, self.rank * self.each / 2
        return Bound(
            share, self.squares, each, self._min_mapped_value, 1 + self.turned, rounding, least
        )

    def expected(self, descent: Tensor, missing: Tensor) -> Tensor:
        """The relative gap that one more polynomial will leave, told from X that it will be applied to.

        The singular values that will come to 1 are near 1 already, so `‖I − XXᵀ‖_F²` counts the others, and a little more.

        Args:
            descent: `<Γ/s, X>`.
            missing: `‖I − XXᵀ‖_F²`, of the rank of Γ.
        """
        lost = self.share * missing
        return lost / (descent + lost)


Number = TypeVar("Number", float, Tensor)


def _subtract(x: float, y: Number, factor: float) -> Number:
    """`x − factor · y`."""
    return torch.rsub(y, x, alpha=factor) if isinstance(y, Tensor) else x - factor * y


def _clip(x: Number, low: float, high: float) -> Number:
    return x.clamp(low, high) if isinstance(x, Tensor) else min(max(x, low), high)


HALF_DEVIATION = 0.02
"""The most that rounding in bfloat16 may add to the distance of a singular value from 1; the cubic step squares that."""
HALF_TURNED = 2e-3
"""The part of the descent that it may cost. Seen on matrices of low rank, of singular values that fall evenly or by a
power, and Gaussian ones: at most 1e-3."""
