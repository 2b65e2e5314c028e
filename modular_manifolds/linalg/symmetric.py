"""The symmetric part, and functions of symmetric matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def sym(x: Tensor) -> Tensor:
    """`(X + Xᵀ)/2`."""
    return (x + x.mT) / 2


def gram(x: Tensor) -> Tensor:
    """`XᵀX`, exactly symmetric."""
    return sym(x.mT @ x)


def eye_like(x: Tensor) -> Tensor:
    """The identity of the size, dtype and device of the square matrices `x`."""
    return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
