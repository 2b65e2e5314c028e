"""Matrix products, each in the way that is quickest for its layout, its size and what is known of the result."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from modular_manifolds.linalg.backend import onednn_product

LARGE: Final = 512
"""From this many columns on, leaving out a block that symmetry gives is worth the calls it takes."""


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """`A B`; two matrices in float32 go to oneDNN where `linalg.backend` knows it to be quicker."""
    through = onednn_product(a, b)
    if through is None:
        return a @ b
    b = b if b.is_contiguous() or b.mT.is_contiguous() else b.contiguous()
    if not a.is_contiguous() and not b.is_contiguous():
        return through(b.mT, a if a.mT.is_contiguous() else a.contiguous()).mT
    return through(a.contiguous(), b.mT)


def product(a: Tensor, b: Tensor) -> Tensor:
    """`A B` with b n×n, laid out in memory as A is: a transposed view gives a transposed view."""
    return multiply(b.mT, a.mT).mT if _is_turned(a) else multiply(a, b)


def plus_product(x: Tensor, a: Tensor, b: Tensor, *, factor: float = 1.0) -> Tensor:
    """`X + factor · A B` with b n×n, in the layout of X."""
    return combined(x, a, b, beta=1.0, alpha=factor)


def combined(x: Tensor, a: Tensor, b: Tensor, *, beta: float, alpha: float) -> Tensor:
    """`beta · X + alpha · A B` in the layout of X."""
    if _is_turned(x):
        return combined(x.mT, b.mT, a.mT, beta=beta, alpha=alpha).mT
    if onednn_product(a, b) is not None:
        # The factor goes to the smaller one, the sum into the memory of the product.
        small = a.numel() <= b.numel()
        a, b = (alpha * a, b) if small else (a, alpha * b)
        return multiply(a, b).add_(x, alpha=beta)
    if x.dim() == 2:
        return torch.addmm(x, a, b, beta=beta, alpha=alpha)
    if x.dim() == 3:
        return torch.baddbmm(x, a, b, beta=beta, alpha=alpha)
    return beta * x + alpha * (a @ b)


def commuting(a: Tensor, b: Tensor, *, sign: int = 1) -> Tensor:
    """`A B` where it is known to be symmetric (`sign=1`) or skew (`sign=-1`): a quarter of a large one is left out.

    So are products of polynomials in one symmetric or skew matrix.
    """
    columns = a.shape[-1]
    if columns < LARGE:
        return multiply(a, b)
    half = columns // 2
    whole = torch.empty_like(a)
    _into(whole[..., :half, :], a[..., :half, :], b)
    _into(whole[..., half:, half:], a[..., half:, :], b[..., half:])
    return _mirror(whole, half, sign)


def gram_product(x: Tensor) -> Tensor:
    """`XᵀX`; of a large one, the block below the diagonal is the transpose of the one above."""
    columns = x.shape[-1]
    if columns < LARGE:
        return multiply(x.mT, x)
    half = columns // 2
    left, right = x[..., :half], x[..., half:]
    whole = x.new_empty((*x.shape[:-2], columns, columns))
    whole[..., :half, :half] = gram_product(left)
    whole[..., :half, half:] = multiply(left.mT, right)
    whole[..., half:, half:] = gram_product(right)
    return _mirror(whole, half, 1)


def _into(there: Tensor, a: Tensor, b: Tensor) -> None:
    """Put `A B` there, without a copy where torch can."""
    if there.is_contiguous() and not torch.is_grad_enabled() and onednn_product(a, b) is None:
        torch.matmul(a, b, out=there)
    else:
        there.copy_(multiply(a, b))


def _mirror(whole: Tensor, half: int, sign: int) -> Tensor:
    upper = whole[..., :half, half:].mT
    whole[..., half:, :half] = upper if sign > 0 else -upper
    return whole


def _is_turned(x: Tensor) -> bool:
    return x.stride(-1) != 1 and x.stride(-2) == 1
