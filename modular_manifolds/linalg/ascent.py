"""Gradient ascent from many starts at once, which looks for a largest value and proves nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LONGER, SHORTER = 1.5, 0.6
"""A step that went up is followed by a longer one, any other by a shorter one."""


def climb(
    value: Callable[[Tensor], Tensor],
    start: Tensor,
    step: Tensor,
    *,
    rounds: int,
    generator: torch.Generator,
    keep: Callable[[Tensor], Tensor] = lambda x: x,
) -> tuple[Tensor, Tensor]:
    """Move every row uphill on `value`; no row ends lower than it began.

    `x ← keep(x + step · ∇value/‖∇value‖)` if that is higher. If the gradient is zero, as that of
    the slope of a piecewise linear function, the direction is random. No row may look at another.

    Args:
        value: from rows (batch, features) to a number each, (batch,); differentiable.
        start: (batch, features).
        step: (batch, 1), the length of the first step of each row, in l2.
        rounds: steps that are tried.
        generator: of the random directions.
        keep: back into the set that is searched.

    Returns:
        the rows, and the lengths of their next steps.
    """
    x = start
    here, gradient = _with_gradient(value, x)
    for _ in range(rounds):
        noise = torch.randn(
            x.shape, generator=generator, dtype=x.dtype, device=generator.device
        ).to(x.device)
        flat = ~(gradient != 0).any(dim=-1, keepdim=True)
        direction = torch.where(flat, noise, gradient)
        length = torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
        there = keep(x + step * direction / length.clamp_min(torch.finfo(x.dtype).tiny))
        found, slope = _with_gradient(value, there)
        higher = (found > here) & torch.isfinite(found)
        rows = higher.unsqueeze(-1)
        x, here = torch.where(rows, there, x), torch.where(higher, found, here)
        gradient = torch.where(rows, slope, gradient)
        step = torch.where(rows, LONGER * step, SHORTER * step)
    return x, step


@torch.enable_grad()
def _with_gradient(value: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    found = value(x)
    if not found.requires_grad:
        return found, torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(found.sum(), x, materialize_grads=True)
    return found.detach(), torch.nan_to_num(gradient, posinf=0.0, neginf=0.0)
