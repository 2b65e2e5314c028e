"""Lengths and inner products for the laws, independent of the norms under test."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX, as_matrices


def inner(a: Tensor, b: Tensor) -> Tensor:
    """`<A, B>` of each matrix, shape (*batch)."""
    return (as_matrices(a, argument="a") * as_matrices(b, argument="b")).sum(dim=MATRIX)


def size(x: Tensor) -> Tensor:
    """The Frobenius norm of each matrix, shape (*batch)."""
    return torch.linalg.matrix_norm(as_matrices(x, argument="x"))


def distance(a: Tensor, b: Tensor) -> Tensor:
    """The Frobenius norm of the difference, shape (*batch)."""
    return size(a - b)


def vector_norm(x: Tensor, norm: str) -> Tensor:
    """`‖x‖` over the last dimension in `rms`, `l2`, `l1` or `linf`."""
    if norm == "rms":
        return torch.linalg.vector_norm(x, dim=-1) / math.sqrt(x.shape[-1])
    order = {"l2": 2.0, "l1": 1.0, "linf": math.inf}[norm]
    return torch.linalg.vector_norm(x, ord=order, dim=-1)
