"""Odd polynomials on a skew matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.backend import skew_msign_by_kernels
from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.matrices import MATRIX, inner
from modular_manifolds.linalg.products import (
    combined,
    commuting,
    commuting_combined,
    multiply,
    saves_by_symmetry,
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
    def begin(cls, x: Tensor, polynomials: Sequence[Polynomial], *, half: bool) -> SkewRun:
        """Apply polynomials to X/s."""
        dtype = x.dtype
        x = x.to(torch.bfloat16) if half else x
        square = _negative_gram(x)
        length = torch.linalg.vector_norm(square, dim=MATRIX, keepdim=True, dtype=dtype)
        size = length.sqrt()
        start, square = x / size.to(x.dtype), square / length.to(x.dtype)
        x = start
        for polynomial in polynomials:
            x = _step(x, square, polynomial)
            square = _negative_gram(x)
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


def _step(x: Tensor, square: Tensor, polynomial: Polynomial) -> Tensor:
    if x.dtype is torch.bfloat16:
        return _step_in_half(x, square, polynomial)
    a, b, c = polynomial
    even = commuting_combined(square, square, square, beta=-b, alpha=c)
    # A stack in float32 is quicker without mirrored blocks.
    if x.dim() == 2 and saves_by_symmetry(x):
        # A mirrored product must be skew, so `aI` is added before it.
        even.diagonal().add_(a)
        return commuting(even, x, sign=-1)
    return combined(x, x, even, beta=a, alpha=1.0)


def _step_in_half(x: Tensor, square: Tensor, polynomial: Polynomial) -> Tensor:
    """The same with rounding only after sums: `aI + R(bI + cR)` is near 1 if singular values are, its terms are not."""
    a, b, c = polynomial
    even = square * -c
    even.diagonal(dim1=-2, dim2=-1).add_(b)
    even = commuting(square, even).neg_()
    even.diagonal(dim1=-2, dim2=-1).add_(a)
    return commuting(even, x, sign=-1)
