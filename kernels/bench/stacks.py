"""The matrices of the comparisons, and their polar factors."""

from __future__ import annotations

import torch
from torch import Tensor


def drawn(*shape: int, device: torch.device, condition: float = 10.0) -> Tensor:
    """A float32 stack whose singular values fall from 1 to 1 / condition."""
    generator = torch.Generator().manual_seed(0)
    batch, (m, n) = shape[:-2], shape[-2:]
    short = min(m, n)
    u, v = (
        torch.linalg.qr(torch.randn(*batch, side, short, generator=generator, dtype=torch.float64))[
            0
        ]
        for side in (m, n)
    )
    sigma = torch.logspace(0, -1, short, base=condition, dtype=torch.float64)
    return ((u * sigma) @ v.mT).to(device, torch.float32)


def polar(x: Tensor) -> Tensor:
    """`U Vᵀ` in float64."""
    u, _, vh = torch.linalg.svd(x.double(), full_matrices=False)
    return u @ vh
