"""Rational functions of a skew matrix of rank 2n, by inverses of n×n matrices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX, inner
from modular_manifolds.linalg.products import commuting
from modular_manifolds.linalg.zolotarev import RationalSign


@dataclass(frozen=True)
class ReducedSign:
    """`h(X/s) [I; 0] = [P; R Y]` for `X = [[S, −Rᵀ], [R, 0]]` and an odd rational function h.

    Args:
        top: P, skew, shape (*batch, n, n), float64.
        bottom: Y, symmetric, shape (*batch, n, n), float64.
        size: s, shape (*batch, 1, 1), float64.
        traces: of the two largest poles t, the larger one last: `tr (I − t² X²/s²)⁻¹`, shape (*batch, 1, 1) each.
    """

    top: Tensor
    bottom: Tensor
    size: Tensor
    traces: tuple[Tensor, Tensor]


def reduced_sign(skew: Tensor, gram: Tensor, function: RationalSign) -> ReducedSign:
    """Apply `function` to `X/s`, `s = ‖X²‖_F^{1/2}`.

    With `σ = S/s`, `ε = RᵀR/s²` and `K = I + tσ + t²ε`, elimination of the lower block gives

        (I + tX/s)⁻¹ = [[K⁻¹, tK⁻¹Rᵀ/s], [−tRK⁻¹/s, I − t²RK⁻¹Rᵀ/s²]],

    and the skew part of that is `−tX/s (I − t²X²/s²)⁻¹`. So neither R nor a matrix of 2n columns is needed. The symmetric part of
    K is at least I, so K has an inverse. s is at least the largest singular value of X, and at most `(2n)^{1/4}` times that.

    Args:
        skew: S, shape (*batch, n, n).
        gram: RᵀR, shape (*batch, n, n), float64: in float32 singular values below 3e-4 would be lost in squares.
        function: h, for singular values of which part of s.
    """
    size = _size(skew, gram).clamp_min_(torch.finfo(gram.dtype).tiny)
    sigma, epsilon = skew.to(gram.dtype).div_(size), gram / size.square()
    top, bottom = sigma.clone(), torch.zeros_like(epsilon)
    bottom.diagonal(dim1=-2, dim2=-1).add_(1)
    odd = torch.zeros_like(sigma)
    traces = [torch.full_like(size, 2 * skew.shape[-1])]
    for pole, weight in zip(function.poles, function.weights, strict=True):
        k = torch.add(sigma, epsilon, alpha=pole).mul_(pole)
        k.diagonal(dim1=-2, dim2=-1).add_(1)
        inverse = torch.linalg.inv_ex(k).inverse
        odd.add_(inverse, alpha=weight * pole)
        bottom.add_(inverse, alpha=weight * pole**2)
        trace = inverse.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
        traces.append(2 * trace - pole * inner(sigma, inverse))
    top.sub_(odd - odd.mT, alpha=0.5).mul_(function.scale)
    bottom = torch.add(bottom, bottom.mT).mul_(function.scale / (2 * size))
    return ReducedSign(top, bottom, size, (traces[-2], traces[-1]))


def _size(skew: Tensor, gram: Tensor) -> Tensor:
    """`‖X²‖_F^{1/2}`, from `‖X²‖_F² = ‖S²‖² − 4 <S², RᵀR> + 2 ‖RᵀR‖²`, all terms of which are positive."""
    square = commuting(skew, skew)
    coarse = gram.to(square.dtype)
    norms = torch.linalg.vector_norm(torch.stack((square, coarse)), dim=MATRIX, keepdim=True)
    norms = norms.to(gram.dtype).square()
    return (norms[0] + 2 * norms[1] - 4 * inner(square, coarse)).sqrt_().sqrt_()
