"""The same polynomials on a skew matrix, which stays skew."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.matrices import MATRIX
from modular_manifolds.linalg.products import LARGE, commuting, multiply


def skew_iterate(
    x: Tensor, polynomials: Sequence[Polynomial], *, half: bool = False
) -> tuple[Tensor, Tensor]:
    """What odd polynomials make of the skew `X/s`, `s = ‖XᵀX‖_F^{1/2}`, exactly skew; and s of shape (*batch, 1, 1).

    `X ← X (aI + R(bI + cR))` with `R = XᵀX = −X²`. A symmetric part that rounding puts into X would grow with −X²,
    from step to step; it does not with XᵀX, and where X is made exactly skew after every step. s is at least the largest singular value and at
    most `n^{1/4}` times that. The entries of X should be of size 1, so that squares neither overflow nor
    vanish.

    With `half` the steps are made in bfloat16.
    """
    dtype = x.dtype
    root: Tensor | None = None
    x = x.to(torch.bfloat16) if half else x
    for a, b, c in polynomials:
        large = x.shape[-1] >= LARGE
        r = commuting(x, x).neg_() if large else multiply(x.mT, x)
        if root is None:
            size = torch.linalg.vector_norm(r, dim=MATRIX, keepdim=True, dtype=dtype)
            size = size.clamp_min(torch.finfo(dtype).tiny)
            root = length = size.sqrt()
            # In bfloat16 X is a copy already.
            x, r = x.div_(length) if half else x / length, r.div_(size)
        x = _step(x, r, a, b, c)
        x = (x - x.mT).mul_(0.5) if large else x
    x = x.to(dtype)
    return (x - x.mT).mul_(0.5), x.new_ones(()) if root is None else root


def _step(x: Tensor, r: Tensor, a: float, b: float, c: float) -> Tensor:
    if x.dim() == 2 and x.shape[-1] < SMALL:
        # Few calls: where matrices are small they cost more than the products.
        eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        return torch.addmm(x, x, r @ r.add(eye, alpha=b / c), beta=a, alpha=c)
    inner = r * c
    inner.diagonal(dim1=-2, dim2=-1).add_(b)
    inner = commuting(r, inner)
    inner.diagonal(dim1=-2, dim2=-1).add_(a)
    return commuting(x, inner, sign=-1)


SMALL = 128
"""Below this oneDNN is not used for products, and torch's own adds a matrix in the same call."""
