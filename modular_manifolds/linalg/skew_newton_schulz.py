"""Odd polynomials on a skew matrix, which stays skew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from modular_manifolds.linalg.backend import skew_msign_by_kernels
from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.matrices import MATRIX, inner
from modular_manifolds.linalg.products import (
    SYMMETRY_MIN_COLUMNS,
    combined,
    commuting,
    commuting_combined,
    multiply,
)

Closing = Callable[[Tensor, Tensor], Sequence[Polynomial]]
"""Chooses the polynomials that end a run from `<X₀, X>` and `‖I − XXᵀ‖_F²`, each of shape (*batch, 1, 1)."""


def skew_iterate(
    x: Tensor,
    polynomials: Sequence[Polynomial],
    *,
    half: bool = False,
    kernels: bool = False,
    closing: Closing | None = None,
) -> tuple[Tensor, Tensor]:
    """Apply odd polynomials to the singular values of the skew `X/s`, `s = ‖X²‖_F^{1/2}`.

    `X ← (aI + R(bI + cR)) X` with `R = XXᵀ = −X²`, once for each polynomial. s is at least the largest singular value and
    at most `n^{1/4}` times that.

    Args:
        x: shape (*batch, n, n), skew; entries of size 1, so that squares neither overflow nor vanish.
        polynomials: in order, at least one.
        half: products in bfloat16; the polynomials must leave room for its rounding.
        kernels: by the Triton kernels; this function without them is their specification.
        closing: asked before the last polynomial; its answer takes the place of that one. Not for the kernels.

    Returns:
        The result, exactly skew and in the dtype of X, and s of shape (*batch, 1, 1). A zero X has s = 0 and no result: NaN,
        but zero by the kernels.
    """
    if x.dim() > 3:
        result, size = skew_iterate(
            x.flatten(0, -3), polynomials, half=half, kernels=kernels, closing=closing
        )
        return result.reshape(x.shape), size.reshape(*x.shape[:-2], 1, 1)
    if kernels:
        result, size = skew_msign_by_kernels(x, _halved(polynomials), half=half)
        return result - result.mT, size
    dtype = x.dtype
    x = x.to(torch.bfloat16) if half else x
    square = _negative_gram(x)
    size = torch.linalg.vector_norm(square, dim=MATRIX, keepdim=True, dtype=dtype)
    root = size.sqrt()
    x, square = x / root.to(x.dtype), square / size.to(x.dtype)
    step = _step_in_half if half else _step
    first = x
    for polynomial in polynomials[:-1]:
        x = step(x, square, polynomial)
        square = _negative_gram(x)
    last = polynomials[-1:]
    if closing is not None:
        trace = torch.linalg.vector_norm(x, dim=MATRIX, keepdim=True, dtype=dtype).square()
        size = torch.linalg.vector_norm(square, dim=MATRIX, keepdim=True, dtype=dtype)
        missing = x.shape[-1] - 2 * trace + size.square()
        last = closing(inner(first, x).to(dtype), missing)
    first_of_last, *others = _halved(last)
    x = step(x, square, first_of_last)
    for polynomial in others:
        x = step(x, _negative_gram(x), polynomial)
    x = x.to(dtype)
    return x - x.mT, root


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
    a, b, c = polynomial
    inner = commuting_combined(square, square, square, beta=-b, alpha=c)
    if x.dim() == 2 and x.shape[-1] >= SYMMETRY_MIN_COLUMNS:
        # Blocks are mirrored, so what is mirrored must be skew.
        inner.diagonal().add_(a)
        return commuting(inner, x, sign=-1)
    return combined(x, x, inner, beta=a, alpha=1.0)


def _step_in_half(x: Tensor, square: Tensor, polynomial: Polynomial) -> Tensor:
    """The same with rounding only after sums: `aI + R(bI + cR)` is near 1 if singular values are, its terms are not."""
    a, b, c = polynomial
    inner = square * -c
    inner.diagonal(dim1=-2, dim2=-1).add_(b)
    inner = commuting(square, inner).neg_()
    inner.diagonal(dim1=-2, dim2=-1).add_(a)
    return commuting(inner, x, sign=-1)
