"""Polynomial iterations on the Gram matrix: fewer products with the rectangular matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.matrices import MATRIX
from modular_manifolds.linalg.products import commuting, gram_product, product

STEPS_PER_GRAM: Final = {torch.bfloat16: 1, torch.float32: 4, torch.float64: 4}
"""The number of steps on one Gram matrix before it is computed anew from X. It holds squares of singular values, so
values below `√eps` are noise, and every step amplifies that noise. In bfloat16 it is computed anew after every step,
because the second polynomial is steep at the values to which the first maps the large singular values. With an updated
Gram matrix they came out at 1.1 to 17 (singular values k^-0.5, columns 128 and 256), beyond the range from which the
polynomials converge."""


def gram_iterate(
    x: Tensor, polynomials: Sequence[Polynomial], *, steps_per_gram: int | None = None
) -> tuple[Tensor, Tensor]:
    """The result of `iterate` for `X/s`, `s = ‖XᵀX‖_F^{1/2}`, in the dtype of X of shape (*batch, m, n), m ≥ n; and s.

    With `R = XᵀX`: `T = aI + R(bI + cR)`, `R ← T R T`, `Q ← Q T`, and after a few steps `X ← X Q`. Two steps
    cost two products with X and five of n×n; `iterate` needs four and two. If m < 1.5 n, R is computed anew
    at every step, as in `iterate`.

    s has shape (*batch, 1, 1). It is at least the largest singular value and at most `n^{1/4}` times that:
    closer than `‖X‖_F`, and without another pass over X. The largest entry of X should be about 1, so that squares
    neither overflow nor vanish.

    Args:
        steps_per_gram: the number of steps on one R; `STEPS_PER_GRAM` if None. Fewer steps lose less to rounding.

    Source: Zhang, Amsel, Chen, Dao, "Gram Newton–Schulz" (2026).
    """
    rows, columns = x.shape[-2:]
    dtype, scale = x.dtype, x.new_ones(())
    steps = (steps_per_gram or STEPS_PER_GRAM[dtype]) if 2 * rows >= 3 * columns else 1
    for start in range(0, len(polynomials), steps):
        run = polynomials[start : start + steps]
        r = gram_product(x)
        if start == 0:
            norm_dtype = torch.promote_types(dtype, torch.float32)
            size = torch.linalg.vector_norm(r, dim=MATRIX, keepdim=True, dtype=norm_dtype)
            # s stays in float32: R/s² must be the Gram matrix of X/s, or its largest eigenvalue leaves the range of
            # the polynomials.
            size = size.clamp_min(torch.finfo(norm_dtype).tiny)
            scale = size.sqrt()
            # The derivative of the norm needs R unchanged.
            r = (r / size).to(dtype) if torch.is_grad_enabled() else r.div_(size)
            q = even_steps(r, run).div_(scale)
        else:
            q = even_steps(r, run)
        x = product(x, q)
    return x, scale


def even_steps(r: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    """`Q = Π T_i`, the polynomial in R by which all steps together multiply X."""
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
