"""Matrices with given singular values, and their exact matrix sign."""

from __future__ import annotations

import torch
from torch import Tensor


def orthonormal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.linalg.qr(torch.randn(shape, dtype=dtype))[0]


def with_values(values: Tensor, m: int) -> Tensor:
    """A random m×n matrix whose singular values are `values`."""
    n = len(values)
    return orthonormal(m, n) @ torch.diag(values.double()) @ orthonormal(n, n).mT
