"""Rational functions of a skew matrix of rank 2n, by inverses of n×n matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.linalg.inverses import inverse
from modular_manifolds.linalg.matrices import MATRIX
from modular_manifolds.linalg.products import commuting, gram_in_float64
from modular_manifolds.linalg.zolotarev import RationalSign


@dataclass(frozen=True)
class ReducedSign:
    """`h(X/s) [I; 0] = [P; R Y]` for `X = [[S, −Rᵀ], [R, 0]]` and an odd rational function h.

    Args:
        top: P, skew, shape (*batch, n, n), float64.
        bottom: Y, symmetric, shape (*batch, n, n), float64.
        size: s, shape (*batch, 1, 1), float64; `MIN_SIZE` if X is zero.
        total: `<X, h(X/s)> = Σ σ h(σ/s)` over the singular values of X, shape (*batch, 1, 1), float64.
        traces: of the two largest poles t, the larger one last: `tr (I − t² X²/s²)⁻¹`, shape (*batch, 1, 1) each.
    """

    top: Tensor
    bottom: Tensor
    size: Tensor
    total: Tensor
    traces: tuple[Tensor, Tensor]


def reduced_sign(skew: Tensor, off_w: Tensor, function: RationalSign) -> ReducedSign:
    """Apply `function` to `X/s`, `s = ‖X²‖_F^{1/2}`, with R any matrix for which RᵀR is the Gram matrix E of `off_w`.

    With `σ = S/s`, `ε = E/s²` and `K = I + tσ + t²ε`, elimination of the lower block gives

        (I + tX/s)⁻¹ = [[K⁻¹, tK⁻¹Rᵀ/s], [−tRK⁻¹/s, I − t²RK⁻¹Rᵀ/s²]],

    and the skew part of that is `−tX/s (I − t²X²/s²)⁻¹`. So neither R nor a matrix of 2n columns is needed. The symmetric part of
    K is at least I, so K has an inverse. s is at least the largest singular value of X, and at most `(2n)^{1/4}` times that.

    E and the inverses are in float64: in float32, squares would lose singular values below 3e-4.

    Args:
        skew: S, shape (*batch, n, n).
        off_w: shape (*batch, m, n).
        function: h.
    """
    epsilon = gram_in_float64(off_w)
    size = _size(skew, epsilon).clamp_min_(MIN_SIZE)
    sigma, epsilon = skew.to(epsilon.dtype, copy=True).div_(size), epsilon.div_(size.square())
    k, odd, even = torch.empty_like(sigma), torch.zeros_like(sigma), torch.zeros_like(sigma)
    traces = [torch.full_like(size, 2 * skew.shape[-1])]
    for pole, weight in zip(function.poles, function.weights, strict=True):
        torch.add(sigma, epsilon, alpha=pole, out=k)
        k.diagonal(dim1=-2, dim2=-1).add_(1 / pole)
        # The transpose of an inverse lies in memory by rows. It is that of K, times t.
        inverted = inverse(k)[0].mT
        odd.add_(inverted, alpha=weight)
        even.add_(inverted, alpha=weight * pole)
        if pole in function.poles[-2:]:
            trace = inverted.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
            traces.append(2 / pole * trace + _inner(sigma, inverted, k))
    top = torch.sub(odd, odd.mT, out=k).mul_(0.5).add_(sigma).mul_(function.scale)
    bottom = torch.add(even, even.mT, out=odd).mul_(0.5)
    bottom.diagonal(dim1=-2, dim2=-1).add_(1)
    bottom.mul_(function.scale)
    total = size * (_inner(sigma, top, even) + 2 * _inner(epsilon, bottom, even))
    return ReducedSign(top, bottom.div_(size), size, total, (traces[-2], traces[-1]))


MIN_SIZE: Final = torch.finfo(torch.float32).tiny
"""The smallest s; its square does not vanish in float64."""


def _size(skew: Tensor, gram: Tensor) -> Tensor:
    """`‖X²‖_F^{1/2}`, from `‖X²‖_F² = ‖S²‖² − 4 <S², RᵀR> + 2 ‖RᵀR‖²`, all terms of which are positive."""
    square = commuting(skew, skew).to(gram.dtype)
    first, last = (
        torch.linalg.vector_norm(each, dim=MATRIX, keepdim=True).square() for each in (square, gram)
    )
    return (first - 4 * _inner(square, gram, square) + 2 * last).sqrt_().sqrt_()


def _inner(a: Tensor, b: Tensor, scratch: Tensor) -> Tensor:
    """`<A, B>` of each matrix, shape (*batch, 1, 1), with the products in `scratch`, which may be A."""
    return torch.mul(a, b, out=scratch).sum(dim=MATRIX, keepdim=True)
