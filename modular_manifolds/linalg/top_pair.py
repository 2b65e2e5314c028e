"""The top singular pair by matrix products: a matrix raised to a high power keeps nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX, divide_safely, near_one
from modular_manifolds.linalg.products import commuting, gram_product

SQUARINGS = 14
"""`(XᵀX)^K` with K = 2^14: a singular value smaller by 1e-3 is gone to the last digit."""


def top_singular_pair(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """u, σ and v of the largest singular value, by squaring `XᵀX` over and over.

    If other singular values equal σ to some 1e-4, v is a combination of their vectors, and `σ = ‖Xv‖`
    lies between them. The column of the power with the largest diagonal entry cannot be orthogonal to the top vector.

    Args:
        x: shape (*batch, m, n), of any finite size.

    Returns:
        u of shape (*batch, m, 1), σ of shape (*batch, 1, 1), v of shape (*batch, n, 1), with `Xv = σu` to rounding.
        A zero X gives the first basis vectors.
    """
    wide = x.shape[-2] < x.shape[-1]
    y = near_one(x.mT if wide else x)
    power = b = gram_product(y)
    tiny = torch.finfo(y.dtype).tiny
    for i in range(SQUARINGS if y.shape[-1] > 1 else 0):
        if i % 2 == 0:
            # Its largest eigenvalue is then at least n^{-1/2}, and after two squarings n^{-2}.
            size = torch.linalg.vector_norm(power, dim=MATRIX, keepdim=True)
            power = power / size.clamp_min(tiny)
        power = commuting(power, power)
    fullest = power.diagonal(dim1=-2, dim2=-1).argmax(dim=-1, keepdim=True).unsqueeze(-1)
    v = power.gather(-1, fullest.expand(*power.shape[:-1], 1))
    for _ in range(2):
        v = _unit(b @ _unit(v))
    long = y @ v
    u = _unit(long)
    # Of X itself, so that its own rounding is all that is off.
    if wide:
        u, v = v, u
    return u, u.mT @ (x @ v), v


def _unit(v: Tensor) -> Tensor:
    """Columns of unit length; zero becomes the first basis vector."""
    largest = v.abs().amax(dim=MATRIX, keepdim=True)
    scaled = divide_safely(v, largest)
    scaled.narrow(-2, 0, 1).add_(largest == 0)
    return scaled / torch.linalg.vector_norm(scaled, dim=MATRIX, keepdim=True)
