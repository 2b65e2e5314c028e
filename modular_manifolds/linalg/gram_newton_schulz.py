"""The same polynomials on the Gram matrix: fewer products with the rectangular matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.matrices import MATRIX
from modular_manifolds.linalg.products import commuting, gram_product, product

TOGETHER: Final = {torch.bfloat16: 1, torch.float32: 4, torch.float64: 4}
"""How many steps are made on one Gram matrix. It holds squares of singular values: those below the root of
rounding are noise, which every step multiplies, so from time to time it is made anew from X. In bfloat16 after every
step: the second polynomial is steep at the values to which the first brought the large singular values. With a Gram
matrix that was rounded on the way they came out at 1.1 to 17 (singular values k^-0.5, columns 128 and 256), beyond the
range that the polynomials bring back."""


def gram_iterate(
    x: Tensor, polynomials: Sequence[Polynomial], *, together: int | None = None
) -> tuple[Tensor, Tensor]:
    """The result of `iterate` for `X/s`, `s = ‖XᵀX‖_F^{1/2}`, in the dtype of X of shape (*batch, m, n), m ≥ n; and s.

    If X is less than half again as tall as wide, one step is made on each R, which is `iterate`. With
    `R = XᵀX`: `T = aI + R(bI + cR)`, `R ← T R T`, `Q ← Q T`, and after a few steps `X ← X Q`. Two steps
    cost two products with X and five of n×n; `iterate` needs four and two. s is at least the
    largest singular value and at most `n^{1/4}` times that: closer than `‖X‖_F`, and no pass over X. It
    has shape (*batch, 1, 1). The entries of X should be of size 1, so that squares neither overflow nor vanish.

    Args:
        together: how many steps are made on one R; `TOGETHER` unless stated. The fewer, the less is lost to rounding.

    Source: Zhang, Amsel, Chen, Dao, "Gram Newton–Schulz" (2026).
    """
    rows, columns = x.shape[-2:]
    dtype, root = x.dtype, x.new_ones(())
    few = (together or TOGETHER[dtype]) if 2 * rows >= 3 * columns else 1
    for start in range(0, len(polynomials), few):
        chosen = polynomials[start : start + few]
        r = gram_product(x)
        if start == 0:
            wide = torch.promote_types(dtype, torch.float32)
            size = torch.linalg.vector_norm(r, dim=MATRIX, keepdim=True, dtype=wide)
            # Not rounded to half precision: R/s² must be the Gram matrix of X/s, or its largest eigenvalue leaves
            # the range of the polynomials.
            size = size.clamp_min(torch.finfo(wide).tiny)
            root = size.sqrt()
            # If a derivative may be asked for, the norm's needs R as it was.
            r = (r / size).to(dtype) if torch.is_grad_enabled() else r.div_(size)
            q = even_steps(r, chosen).div_(root)
        else:
            q = even_steps(r, chosen)
        x = product(x, q)
    return x, root


def even_steps(r: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    """The polynomial in R that all the steps together multiply X by."""
    q: Tensor | None = None
    for i, (a, b, c) in enumerate(polynomials):
        inner = c * r
        inner.diagonal(dim1=-2, dim2=-1).add_(b)
        t = commuting(r, inner)
        t.diagonal(dim1=-2, dim2=-1).add_(a)
        q = t if q is None else commuting(q, t)
        if i + 1 < len(polynomials):
            r = commuting(t, commuting(r, t))
    assert q is not None
    return q
