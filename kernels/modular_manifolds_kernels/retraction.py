"""Retraction to the Stiefel manifold by kernels: one launch where the short side fits on the chip."""

from __future__ import annotations

import torch
from torch import Tensor

from modular_manifolds_kernels import launches
from modular_manifolds_kernels.launches import stack, wide
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.matrix_sign import LONGEST
from modular_manifolds_kernels.shipped import Configuration, choose


def fits(n: int, k: int, target: str) -> Configuration | None:
    """The row of the kernel that takes a whole matrix n×k, n ≤ k, in one launch; None where none does."""
    whole = choose("stiefel_retract", "fp32", target, side=n)
    if whole is not None or k > LONGEST:
        return whole
    return choose("tiled_retract", "fp32", target, side=n)


def stiefel_retract(
    machine: Machine, w: Tensor, a: Tensor, eta: float, corrections: int
) -> tuple[Tensor, Tensor]:
    """What `naive.stiefel_retract` computes, in float32 whatever the weights are stored in.

    The residual is that of what is stored, its rounding to the dtype of `w` included.
    """
    out = torch.empty(w.shape, dtype=w.dtype, device=w.device)
    point, step, target = wide(stack(w)), wide(stack(a)), wide(stack(out))
    batch, n, k = point.shape
    row = fits(n, k, machine.target)
    if row is None:
        residual = _by_launches(machine, point, step, target, eta, corrections)
    else:
        residual = torch.empty(batch, dtype=torch.float32, device=w.device)
        strides = (*point.stride(), *step.stride(), *target.stride())
        if row.kernel == "stiefel_retract":
            arguments = (point, step, target, residual, eta, n, k, corrections)
        else:
            held, width = launches.scratch(row, point, squares=1)
            arguments = (point, step, target, held, residual, eta, n, k, width, corrections)
        machine.launch(row, (batch,), *arguments, *strides)
    return out, residual.reshape(w.shape[:-2])


def _by_launches(
    machine: Machine, w: Tensor, a: Tensor, out: Tensor, eta: float, corrections: int
) -> Tensor:
    """Two launches a correction and one for the residual, beside torch's elementwise ones."""
    x = torch.add(w.float(), a.float(), alpha=eta) / (1 + eta**2) ** 0.5
    for correction in range(corrections):
        r, _ = launches.gram(machine, x, "fp32")
        last = correction + 1 == corrections
        to = out if last else launches.like(x, torch.float32)
        x = launches.apply(machine, r, x, 1.5, -0.5, "fp32", out=to)
    if corrections == 0:
        out.copy_(x)
    r, _ = launches.gram(machine, out, "fp32")
    r.diagonal(dim1=-2, dim2=-1).sub_(1.0)
    return r.abs().amax(dim=(-2, -1))
