"""torch's operators on lists of tensors, with one launch for each list. They have no public names in torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

_TORCH: Final[Any] = torch


def largest_entries(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """`max |x|` of each tensor, shape (tensors,); NaN if an entry is."""
    return torch.stack(list(_TORCH._foreach_norm(tensors, math.inf, dtype=dtype)))


def largest_numbers(tensors: Sequence[Tensor]) -> list[Tensor]:
    """`max |x|` of each tensor in its own dtype, without dimensions; NaN if an entry is."""
    # torch's compiler does not support `_foreach_max`.
    return list(_TORCH._foreach_norm(tensors, math.inf))


def multiply(tensors: Sequence[Tensor], factor: float) -> list[Tensor]:
    """Every tensor times one number."""
    return list(_TORCH._foreach_mul(tensors, factor))


def multiply_(tensors: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply every tensor by a factor without dimensions."""
    _TORCH._foreach_mul_(tensors, factor)


def add_(tensors: Sequence[Tensor], others: Sequence[Tensor], *, alpha: float) -> None:
    """Add `alpha` times the other tensor to each tensor."""
    _TORCH._foreach_add_(tensors, others, alpha=alpha)


def copy_(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Copy the other tensor into each tensor."""
    _TORCH._foreach_copy_(tensors, others)
