"""Large singular values by an eigendecomposition of the smaller Gram matrix in float64, for tensors of the host.

With `XᵀX = V diag(σ²) Vᵀ`, X tall, a decomposition costs n³, not m n². Rounding moves every σ² by that of the largest one,
so only singular values close to the largest are accurate. They are all that a cap or a top pair needs.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX

SQUARES_RANGE: Final = (1e-100, 1e100)
"""Norms whose squares are in range in float64, with room for their digits."""

MAX_RATIO: Final = 8.0
"""The largest ratio of the largest singular value to the cap. The rounding of capped ones grows with its square."""

MIN_RATIO: Final = 1e-3
"""The smallest ratio of the largest singular value to the radius to which it is raised."""


def capped_by_gram(x: Tensor, radius: float, *, raised: bool = False) -> Tensor | None:
    """X with its singular values capped at the radius.

    Args:
        x: shape (*batch, m, n), on the host.
        radius: the cap.
        raised: whether the largest singular value is raised to the radius if it is below.

    Returns:
        The capped matrices; those that do not change are equal bit for bit. None if a singular value is far from the radius,
        or an entry is not finite: the rounding of a Gram matrix would then be too large.
    """
    if not SQUARES_RANGE[0] < radius < SQUARES_RANGE[1]:
        return None
    y = x.double()
    tall = y.mT if x.shape[-2] < x.shape[-1] else y
    gram = tall.mT @ tall
    largest = torch.linalg.vector_norm(gram, dim=MATRIX).sqrt()
    if not raised and bool((largest <= radius).all()):
        return x
    if not bool(torch.isfinite(largest).all()):
        return None
    values, v = torch.linalg.eigh(gram)
    top = values[..., -1:].clamp_min(0).sqrt()
    lowest = MIN_RATIO * radius if raised else 0.0
    if not bool(((top >= lowest) & (top <= MAX_RATIO * radius)).all()):
        return None
    factor = radius / values.clamp_min(radius**2).sqrt() - 1
    if raised:
        factor = torch.cat((factor[..., :-1], radius / top - 1), dim=-1)
    step = tall @ ((v * factor.unsqueeze(-2)) @ v.mT)
    result = (y + (step if tall is y else step.mT)).to(x.dtype)
    changes = (factor != 0).any(dim=-1)[..., None, None]
    return result if bool(changes.all()) else torch.where(changes, result, x)


def top_pair_by_gram(x: Tensor) -> Tensor | None:
    """`u vᵀ` of the largest singular value in float64, for X of shape (*batch, m, n) on the host.

    None if the squares of X are out of range, as those of zero or NaN are.
    """
    y = x.double()
    tall = y.mT if x.shape[-2] < x.shape[-1] else y
    gram = tall.mT @ tall
    size = torch.linalg.vector_norm(gram, dim=MATRIX).sqrt()
    if not bool(((size > SQUARES_RANGE[0]) & (size < SQUARES_RANGE[1])).all()):
        return None
    v = torch.linalg.eigh(gram).eigenvectors[..., -1:]
    u = tall @ v
    u = u / torch.linalg.vector_norm(u, dim=MATRIX, keepdim=True)
    return u @ v.mT if tall is y else v @ u.mT
