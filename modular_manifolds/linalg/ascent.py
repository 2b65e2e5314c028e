"""Gradient ascent from many starts at once, which looks for a largest value and proves nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STEP_GROWTH, STEP_SHRINK = 1.5, 0.6
"""Factors on the step length after a step that raised the value, and after any other."""


def climb(
    value: Callable[[Tensor], Tensor],
    start: Tensor,
    step: Tensor,
    *,
    rounds: int,
    generator: torch.Generator,
    keep: Callable[[Tensor], Tensor] = lambda x: x,
) -> tuple[Tensor, Tensor]:
    """Gradient ascent on `value`, row by row; no row ends at a lower value than it started with.

    `x ← keep(x + step · ∇value/‖∇value‖)` if that raises the value. If the gradient is zero, as it is for
    the slope of a piecewise linear function, the direction is random. The value of a row must depend on that row alone.

    Args:
        value: maps rows (batch, features) to one number each, (batch,); differentiable.
        start: (batch, features).
        step: (batch, 1), the l2 length of the first step of each row.
        rounds: the number of steps tried.
        generator: draws the random directions.
        keep: projects rows back to the set that is searched.

    Returns:
        The rows, and the lengths of their next steps.
    """
    x = start
    current, gradient = _with_gradient(value, x)
    for _ in range(rounds):
        noise = torch.randn(
            x.shape, generator=generator, dtype=x.dtype, device=generator.device
        ).to(x.device)
        flat = ~(gradient != 0).any(dim=-1, keepdim=True)
        direction = torch.where(flat, noise, gradient)
        length = torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
        candidate = keep(x + step * direction / length.clamp_min(torch.finfo(x.dtype).tiny))
        candidate_value, candidate_gradient = _with_gradient(value, candidate)
        improved = (candidate_value > current) & torch.isfinite(candidate_value)
        rows = improved.unsqueeze(-1)
        x, current = (
            torch.where(rows, candidate, x),
            torch.where(improved, candidate_value, current),
        )
        gradient = torch.where(rows, candidate_gradient, gradient)
        step = torch.where(rows, STEP_GROWTH * step, STEP_SHRINK * step)
    return x, step


@torch.enable_grad()
def _with_gradient(value: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    values = value(x)
    if not values.requires_grad:
        return values, torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(values.sum(), x, materialize_grads=True)
    return values.detach(), torch.nan_to_num(gradient, posinf=0.0, neginf=0.0)
