"""The top singular pair by matrix products: a high power of `XᵀX` is its projection, up to a factor."""

from __future__ import annotations

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX, divide_safely, scale_exactly
from modular_manifolds.linalg.products import commuting, gram_product

SQUARINGS = 14
"""The number of squarings. In `(XᵀX)^K`, K = 2^14, a singular value smaller by 1e-3 vanishes in the rounding."""


def top_singular_pair(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """u, σ and v of the largest singular value, by squaring `XᵀX` repeatedly.

    If other singular values are within a relative 1e-4 of σ, v is a combination of their vectors, and `σ = ‖Xv‖`
    lies between them. v starts from the column of the power with the largest diagonal entry, which cannot be
    orthogonal to the top vector.

    Args:
        x: shape (*batch, m, n), of any finite size.

    Returns:
        u of shape (*batch, m, 1), σ of shape (*batch, 1, 1), v of shape (*batch, n, 1), with `Xv = σu` to rounding.
        A zero X gives the first basis vectors.
    """
    wide = x.shape[-2] < x.shape[-1]
    y = scale_exactly(x.mT if wide else x)
    power = b = gram_product(y)
    tiny = torch.finfo(y.dtype).tiny
    for i in range(SQUARINGS if y.shape[-1] > 1 else 0):
        if i % 2 == 0:
            # The largest eigenvalue is then at least n^{-1/2}, and after two squarings at least n^{-2}.
            size = torch.linalg.vector_norm(power, dim=MATRIX, keepdim=True)
            power = power / size.clamp_min(tiny)
        power = commuting(power, power)
    pivot = power.diagonal(dim1=-2, dim2=-1).argmax(dim=-1, keepdim=True).unsqueeze(-1)
    v = power.gather(-1, pivot.expand(*power.shape[:-1], 1))
    for _ in range(2):
        v = _unit(b @ _unit(v))
    image = y @ v
    u = _unit(image)
    # σ is computed from X itself, so that the rounding of Y does not enter.
    if wide:
        u, v = v, u
    return u, u.mT @ (x @ v), v


def _unit(v: Tensor) -> Tensor:
    """Columns of unit length; zero becomes the first basis vector."""
    largest = v.abs().amax(dim=MATRIX, keepdim=True)
    scaled = divide_safely(v, largest)
    scaled.narrow(-2, 0, 1).add_(largest == 0)
    return scaled / torch.linalg.vector_norm(scaled, dim=MATRIX, keepdim=True)
