"""Fresh or trained: whether a weight looks newly initialised."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

EDGE_FACTOR: Final = 1.5
"""The largest accepted ratio of a fresh weight's `σ_max` to the edge of random matrices."""
ORTHOGONAL_SPREAD: Final = 1e-3
"""The largest relative deviation of `WᵀW` from a multiple of the identity for an orthogonal initialisation."""
POWER_STEPS: Final = 4
"""The number of steps of the power iteration."""


def is_fresh(matrix: Tensor) -> bool:
    """Whether every matrix of (*batch, m, n) has independent entries, is orthogonal, or is constant.

    Independent entries of rms s have `σ_max` near the edge `s (√m + √n)` of Marchenko and Pastur; training adds directions
    beyond it.
    """
    x = matrix.detach().float()
    m, n = x.shape[-2:]
    if min(m, n) == 1:
        # A single row has one singular value, its length.
        return True
    x = x.reshape(-1, m, n)
    if bool((x == x[..., :1, :1]).flatten(1).all()):
        return True
    rms = x.square().mean(dim=(-2, -1)).sqrt()
    edge = EDGE_FACTOR * rms * (math.sqrt(m) + math.sqrt(n))
    is_below_edge = largest_singular_values(x) <= edge
    return bool(is_below_edge.all()) or _is_orthogonal(x)


def largest_singular_values(x: Tensor, *, steps: int = POWER_STEPS) -> Tensor:
    """A lower bound on `σ_max` of each matrix of (batch, m, n), by power iteration on four vectors, shape (batch,)."""
    tall = x if x.shape[-2] >= x.shape[-1] else x.mT
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(tall.shape[-1], 4, generator=generator).to(tall)
    v = v.expand(tall.shape[0], -1, -1)
    for _ in range(steps):
        v = tall.mT @ (tall @ v)
        v = v / v.norm(dim=-2, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)
    return (tall @ v).norm(dim=-2).amax(dim=-1)


def _is_orthogonal(x: Tensor) -> bool:
    tall = x if x.shape[-2] >= x.shape[-1] else x.mT
    gram = tall.mT @ tall
    size = gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
    unit = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return bool(((gram / size - unit).abs() <= ORTHOGONAL_SPREAD).all())
