"""Stacking tensors of one shape into one tensor, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def stack_tensors(tensors: Sequence[Tensor], *, batched: bool = False) -> Tensor:
    """One tensor with a batch dimension, or the tensor itself if there is only one and it need not be `batched`."""
    return tensors[0] if len(tensors) == 1 and not batched else torch.stack(list(tensors))


def as_factor(values: list[float], like: Tensor) -> Tensor | float:
    """One number for each tensor of a stack, as a tensor, or the number itself if there is only one."""
    return values[0] if len(values) == 1 else like.new_tensor(values)


def unstack_tensor(tensor: Tensor, count: int, *, batched: bool = False) -> list[Tensor]:
    """Undo `stack_tensors`: views into its memory."""
    return [tensor] if count == 1 and not batched else list(tensor.unbind())


def broadcast_over(numbers: Tensor | float, like: Tensor) -> Tensor | float:
    """Numbers of shape (*batch), or one number, in a shape that broadcasts over `like` of shape (*batch, …)."""
    if not isinstance(numbers, Tensor):
        return numbers
    return numbers.reshape(numbers.shape + (1,) * (like.dim() - numbers.dim()))
