"""Singular values and decompositions that are safe for entries of any finite size."""

import torch
from torch import Tensor

from modular_manifolds.errors import NonFiniteError
from modular_manifolds.linalg.matrices import divide_safely, largest_entry


def decompose(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """U, σ, Vᵀ of `X/s`, and s, the largest entry of X (1 if X is zero), all in float64."""
    if not bool(torch.isfinite(x).all()):
        raise _not_finite()
    size = largest_entry(x).double()
    size = torch.where(size == 0, 1.0, size)
    u, sigma, vh = torch.linalg.svd(x.double() / size, full_matrices=False)
    return u, sigma, vh, size


def recompose(u: Tensor, sigma: Tensor, vh: Tensor, size: Tensor | float, like: Tensor) -> Tensor:
    """`s U diag(σ) Vᵀ` in the dtype of `like`."""
    return (size * ((u * sigma.unsqueeze(-2)) @ vh)).to(like.dtype)


def singular_values(x: Tensor) -> Tensor:
    """Singular values, largest first, shape (*batch, min(m, n)); safe for entries of any finite size."""
    scale = largest_entry(x)
    try:
        return torch.linalg.svdvals(divide_safely(x, scale)) * scale[..., 0]
    except RuntimeError as error:
        if bool(torch.isfinite(x).all()):
            raise
        raise _not_finite() from error


def _not_finite() -> NonFiniteError:
    return NonFiniteError("x", "must be finite", "NaN or infinity", "Look where it came from.")
