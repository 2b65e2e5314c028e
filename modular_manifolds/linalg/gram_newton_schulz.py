"""The same polynomials on the Gram matrix: fewer products with the rectangular matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.matrices import MATRIX, product
from modular_manifolds.linalg.newton_schulz import schedule

TOGETHER: Final = {torch.bfloat16: 2, torch.float32: 4, torch.float64: 8}
"""How many steps are made on one Gram matrix. It holds squares of singular values: those below the root of
rounding are noise, which every step multiplies, so from time to time it is made anew from X."""


def gram_iterate(x: Tensor, polynomials: Sequence[Polynomial]) -> tuple[Tensor, Tensor]:
    """What `iterate` makes of `X/s`, `s = ‖XᵀX‖_F^{1/2}`, in the dtype of X of shape (*batch, m, n), m ≥ n; and s.

    Where X is less than half again as tall as wide, one step is made on each R, which is `iterate`. With
    `R = XᵀX`: `T = aI + R(bI + cR)`, `R ← T R T`, `Q ← Q T`, and after a few steps `X ← X Q`. Two steps
    cost two products with X and five of n×n, where `iterate` needs four and two. s is at least the
    largest singular value and at most `n^{1/4}` times that: closer than `‖X‖_F`, and no pass over X. It
    has shape (*batch, 1, 1). The entries of X should be of size 1, so that squares neither overflow nor vanish.

    Source: Zhang, Amsel, Chen, Dao, "Gram Newton–Schulz" (2026).
    """
    rows, columns = x.shape[-2:]
    root = x.new_ones(())
    few = TOGETHER[x.dtype] if 2 * rows >= 3 * columns else 1
    for start in range(0, len(polynomials), few):
        r = _gram(x)
        if start == 0:
            wide = torch.promote_types(r.dtype, torch.float32)
            squares = r.square().sum(dim=MATRIX, keepdim=True, dtype=wide)
            size = squares.sqrt().clamp_min(torch.finfo(r.dtype).tiny).to(r.dtype)
            root = size.sqrt()
            q = _steps(r / size, polynomials[:few]) / root
        else:
            q = _steps(r, polynomials[start : start + few])
        x = product(x, q)
    return x, root


LARGE: Final = 512
"""From this many columns on, leaving out a block that symmetry gives is worth two more calls."""


def _commuting(a: Tensor, b: Tensor) -> Tensor:
    """`A B` of polynomials in one symmetric matrix, which is symmetric; a quarter is left out of a large one."""
    columns = a.shape[-1]
    if columns < LARGE:
        return a @ b
    half = columns // 2
    upper = a[..., :half, :] @ b
    right = a[..., half:, :] @ b[..., half:]
    lower = torch.cat((upper[..., half:].mT, right), dim=-1)
    return torch.cat((upper, lower), dim=-2)


def _gram(x: Tensor) -> Tensor:
    """`XᵀX`; of a large one, the block below the diagonal is the transpose of the one above."""
    columns = x.shape[-1]
    if columns < LARGE:
        return x.mT @ x
    a, b = x[..., : columns // 2], x[..., columns // 2 :]
    right = a.mT @ b
    upper = torch.cat((_gram(a), right), dim=-1)
    return torch.cat((upper, torch.cat((right.mT, _gram(b)), dim=-1)), dim=-2)


def inverse_root_by_products(
    m: Tensor, *, accuracy: float, least: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`P ≈ N^{-1/2}` for `N = M + δI`, M symmetric and positive semidefinite, without a decomposition.

    `δ = least² ‖M‖_F` keeps N away from singular. P is a polynomial in N, and every eigenvalue of
    `P N^{1/2}` is within `accuracy` of 1.

    Args:
        m: shape (*batch, n, n), float64; zero is allowed.
        accuracy, least: as above; the smaller, the more products.

    Returns:
        P, N, and `‖M‖_F` of shape (*batch, 1, 1).
    """
    size = m.square().sum(dim=MATRIX, keepdim=True).sqrt().clamp_min(torch.finfo(m.dtype).tiny)
    r = m / size
    r.diagonal(dim1=-2, dim2=-1).add_(least**2)
    # The largest eigenvalue of r is at most 1 + least², hardly more than 1.
    q = _steps(r / (1 + least**2), schedule(accuracy, least / (1 + least**2) ** 0.5))
    scale = size * (1 + least**2)
    return q * scale.rsqrt(), r * size, size


def _steps(r: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    """The polynomial in R that all the steps together multiply X by."""
    q: Tensor | None = None
    for i, (a, b, c) in enumerate(polynomials):
        inner = c * r
        inner.diagonal(dim1=-2, dim2=-1).add_(b)
        t = _commuting(r, inner)
        t.diagonal(dim1=-2, dim2=-1).add_(a)
        q = t if q is None else _commuting(q, t)
        if i + 1 < len(polynomials):
            r = _commuting(t, _commuting(r, t))
    assert q is not None
    return q
