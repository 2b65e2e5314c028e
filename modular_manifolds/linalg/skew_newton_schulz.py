"""The same polynomials on a skew matrix, which stays skew."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.matrices import MATRIX
from modular_manifolds.linalg.products import LARGE, commuting, multiply
from modular_manifolds.linalg.symmetric import skew


def skew_iterate(
    x: Tensor, polynomials: Sequence[Polynomial], *, half: bool = False
) -> tuple[Tensor, Tensor]:
    """What odd polynomials make of the skew `X/s`, `s = ‖XXᵀ‖_F^{1/2}`; and s of shape (*batch, 1, 1).

    `X ← (aI + R(bI + cR)) X` with `R = XXᵀ = −X²`. s is at least the largest singular value and at
    most `n^{1/4}` times that. The entries of X should be of size 1, so that squares neither overflow nor vanish.
    The result is skew to rounding, and in bfloat16 with `half`: `skew_onward` goes on with it, `exactly_skew` ends.
    """
    if _is_small(x) and not half:
        square = torch.mm(x, x)
        size = torch.linalg.vector_norm(square)
        root = math.sqrt(float(size))
        if root == 0.0:
            return x, size
        return _in_few_calls(x, polynomials, square, 1.0 / root), size.sqrt()
    dtype = x.dtype
    x = x.to(torch.bfloat16) if half else x
    r = _gram(x)
    size = torch.linalg.vector_norm(r, dim=MATRIX, keepdim=True, dtype=dtype)
    size = size.clamp_min(torch.finfo(dtype).tiny)
    root = size.sqrt()
    # In bfloat16 X is a copy already.
    x, r = x.div_(root) if half else x / root, r.div_(size)
    return skew_onward(_step(x, r, *polynomials[0]), polynomials[1:]), root


def skew_onward(x: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    """What further polynomials make of a result of `skew_iterate`, whose singular values are near 1 or below."""
    if _is_small(x) and x.dtype is not torch.bfloat16:
        return _in_few_calls(x, polynomials)
    for a, b, c in polynomials:
        x = _step(x, _gram(x), a, b, c)
    return x


def exactly_skew(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The skew part of a result of `skew_iterate`, in `dtype`."""
    return skew(x.to(dtype))


SMALL = 128
"""Up to this size one matrix in the host's memory costs less by its products than by the calls they take."""


def _is_small(x: Tensor) -> bool:
    return x.dim() == 2 and x.shape[-1] <= SMALL and x.is_cpu


def _in_few_calls(
    x: Tensor, polynomials: Sequence[Polynomial], square: Tensor | None = None, unit: float = 1.0
) -> Tensor:
    """The same of `unit · X`, given its X² or not: three calls a step, and no pass to scale.

    Rounding puts a symmetric part into X. With −X² for XXᵀ it grows as singular values near zero do, not more, since
    the map is analytic.
    """
    for a, b, c in polynomials:
        square = torch.mm(x, x) if square is None else square
        inner = torch.addmm(square, square, square, beta=-b * unit**2, alpha=c * unit**4)
        x = torch.addmm(x, x, inner, beta=a * unit, alpha=unit)
        square, unit = None, 1.0
    return x


def _gram(x: Tensor) -> Tensor:
    """`X Xᵀ`; `−X²` of a large one, which is made skew again after every step.

    Elsewhere a symmetric part that rounding puts into X would grow with −X², in bfloat16 from step to step.
    """
    return commuting(x, x).neg_() if x.shape[-1] >= LARGE else multiply(x, x.mT)


def _step(x: Tensor, r: Tensor, a: float, b: float, c: float) -> Tensor:
    inner = r * c
    inner.diagonal(dim1=-2, dim2=-1).add_(b)
    inner = commuting(r, inner)
    inner.diagonal(dim1=-2, dim2=-1).add_(a)
    x = commuting(inner, x, sign=-1)
    return skew(x) if x.shape[-1] >= LARGE else x
