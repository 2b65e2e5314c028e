"""Retraction to the Stiefel manifold by kernels: one launch if the short side fits on the chip."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modular_manifolds_kernels import launches
from modular_manifolds_kernels.launches import Step, as_wide, stack
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.matrix_sign import ONE_PROGRAM_MAX_COLUMNS
from modular_manifolds_kernels.shipped import Configuration, choose


def one_launch_row(n: int, k: int, target: str) -> Configuration | None:
    """The row of the kernel that takes a whole matrix n×k, n ≤ k, in one launch; None if none does."""
    narrow = choose("stiefel_retract", "fp32", target, side=n)
    if narrow is not None or k > ONE_PROGRAM_MAX_COLUMNS:
        return narrow
    return choose("tiled_retract", "fp32", target, side=n)


def stiefel_retract(
    machine: Machine, w: Tensor, a: Tensor, step: Step, corrections: int, *, measured: bool = True
) -> tuple[Tensor, Tensor]:
    """`naive.stiefel_retract` by kernels, computed in float32 for weights of any dtype.

    The residual is that of the stored result, including its rounding to the dtype of `w`. Without `measured` it is
    empty, which saves a product for larger matrices.
    """
    out = torch.empty(w.shape, dtype=w.dtype, device=w.device)
    point, direction, target = as_wide(stack(w)), as_wide(stack(a)), as_wide(stack(out))
    batch, n, k = point.shape
    row = one_launch_row(n, k, machine.target)
    if row is None:
        residual = _by_launches(machine, point, direction, target, step, corrections, measured)
    else:
        residual = torch.empty(batch, dtype=torch.float32, device=w.device)
        strides = (*point.stride(), *direction.stride(), *target.stride())
        length = step.arguments(w.device)
        if row.kernel == "stiefel_retract":
            arguments = (point, direction, target, residual, *length, n, k, corrections)
        else:
            workspace, width = launches.scratch(row, point, squares=1)
            counts = (n, k, width, corrections)
            arguments = (point, direction, target, workspace, residual, *length, *counts)
        machine.launch(row, (batch,), *arguments, *strides)
    return out, residual.reshape(w.shape[:-2]) if measured else residual.new_empty(0)


def _by_launches(
    machine: Machine,
    w: Tensor,
    a: Tensor,
    out: Tensor,
    step: Step,
    corrections: int,
    measured: bool,
) -> Tensor:
    """One launch for the step, two for each correction, and one for the residual with two of torch's operators."""
    x = out if corrections == 0 else launches.empty_like(w, torch.float32)
    launches.move(machine, w, a, x, step)
    for correction in range(corrections):
        r, _ = launches.gram(machine, x, "fp32")
        last = correction + 1 == corrections
        to = out if last else launches.empty_like(x, torch.float32)
        x = launches.apply(machine, r, x, 1.5, -0.5, "fp32", out=to)
    if not measured:
        return out.new_empty(0, dtype=torch.float32)
    r, _ = launches.gram(machine, out, "fp32")
    r.diagonal(dim1=-2, dim2=-1).sub_(1.0)
    return torch.linalg.vector_norm(r, ord=math.inf, dim=(-2, -1))
