"""Numbers about whole matrices, one for each of a stack, on the host: decisions are made there."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[np.float64]


def on_host(*numbers: Tensor) -> tuple[Numbers, ...]:
    """Each tensor of one number a matrix as a flat array; one wait for the device for all of them."""
    if numbers[0].numel() == 1 and numbers[0].is_cpu:
        return tuple(np.array([float(each)]) for each in numbers)
    stacked = torch.stack([each.detach().reshape(-1).double() for each in numbers])
    return tuple(stacked.cpu().numpy())


def spread(numbers: Numbers, like: Tensor) -> Tensor | float:
    """The numbers as factors for the stack of matrices `like`: shape (*batch, 1, 1), or a float for one matrix."""
    if like.dim() == 2:
        return float(numbers[0])
    return torch.from_numpy(numbers).to(like).reshape(*like.shape[:-2], 1, 1)
