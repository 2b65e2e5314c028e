"""Inverses of square matrices, and of stacks of them."""

from __future__ import annotations

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import readable


def inverse(x: Tensor) -> tuple[Tensor, Tensor]:
    """`X⁻¹` of each matrix, and a number that is not 0 if a matrix has no inverse.

    On the host the matrices of a stack are inverted one by one. torch 2.13 gives each thread a part of the stack, and MKL's LU
    decomposition then fails from about 192 columns on: it complains about an argument of DLASWP and does not return.

    Args:
        x: shape (*batch, n, n).

    Returns:
        The inverses, shape (*batch, n, n), and the numbers, shape (*batch).
    """
    if x.dim() == 2 or not readable(x):
        inverses, info = torch.linalg.inv_ex(x)
        return inverses, info
    each = [torch.linalg.inv_ex(matrix) for matrix in x.flatten(0, -3)]
    if not each:
        return torch.empty_like(x), x.new_zeros(x.shape[:-2], dtype=torch.int32)
    inverses = torch.stack([found for found, _ in each]).reshape(x.shape)
    return inverses, torch.stack([info for _, info in each]).reshape(x.shape[:-2])
