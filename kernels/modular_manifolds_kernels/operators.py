"""The kernels as torch operators, with fake implementations, derivatives and vmap rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modular_manifolds_kernels import launches, naive
from modular_manifolds_kernels.derivative import polar_gradient
from modular_manifolds_kernels.launches import Step, stack
from modular_manifolds_kernels.machine import machine_of
from modular_manifolds_kernels.matrix_sign import msign_and_scale as msign_by_kernels
from modular_manifolds_kernels.retraction import stiefel_retract as retract_by_kernels

NAMESPACE = "modular_manifolds_kernels"


def polynomials(flat: Sequence[float]) -> tuple[tuple[float, float, float], ...]:
    """The flat list of an operator's argument as triples."""
    return tuple((flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3))


@torch.library.custom_op(f"{NAMESPACE}::msign", mutates_args=())
def msign(
    x: Tensor, coefficients: Sequence[float], precision: str, largest: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`naive.msign_and_scale` in at least float32, for devices without kernels."""
    del precision, largest
    if x.numel() == 0:
        dtype = torch.promote_types(x.dtype, torch.float32)
        return x.new_empty(x.shape), x.new_zeros(x.shape[:-2], dtype=dtype)
    computed = x.to(torch.promote_types(x.dtype, torch.float32))
    result, scale = naive.msign_and_scale(computed, polynomials(coefficients))
    return result.to(x.dtype).contiguous(), scale.contiguous()


@msign.register_kernel("cuda")
def _(
    x: Tensor, coefficients: Sequence[float], precision: str, largest: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    device = x.device.index
    with torch.cuda.device(device):
        kind = "bf16" if precision == "bf16" else "fp32"
        return msign_by_kernels(machine_of(device), x, polynomials(coefficients), kind, largest)


@msign.register_fake
def _(
    x: Tensor, coefficients: Sequence[float], precision: str, largest: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    del coefficients, precision, largest
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty(x.shape), x.new_empty(x.shape[:-2], dtype=dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    result, scale = output
    ctx.mark_non_differentiable(scale)
    ctx.save_for_backward(inputs[0], result)


def _backward(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor, None, None, None]:
    x, u = ctx.saved_tensors
    return polar_gradient(x, u, gradient).to(x.dtype), None, None, None


msign.register_autograd(_backward, setup_context=_keep)


@msign.register_vmap
def _(
    info: Any,
    in_dims: tuple[Any, ...],
    x: Tensor,
    coefficients: Sequence[float],
    precision: str,
    largest: Tensor | None = None,
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    del info, largest
    return msign(x.movedim(in_dims[0], 0), coefficients, precision), (0, 0)


@torch.library.custom_op(f"{NAMESPACE}::stiefel_retract", mutates_args=())
def stiefel_retract(
    w: Tensor,
    a: Tensor,
    eta: float,
    corrections: int,
    lengths: Tensor | None = None,
    unit: bool = True,
    measured: bool = True,
) -> tuple[Tensor, Tensor]:
    """`naive.stiefel_retract` in at least float32, for devices without kernels.

    The length is `eta` times `lengths`, which has one number for each matrix. Without `measured` the residual is empty.
    """
    dtype = torch.promote_types(w.dtype, torch.float32)
    length = eta if lengths is None else eta * lengths.to(dtype)
    landed, _ = naive.stiefel_retract(w.to(dtype), a.to(dtype), length, corrections, unit=unit)
    stored = landed.to(w.dtype).contiguous()
    if not measured:
        return stored, w.new_empty(0, dtype=dtype)
    # The residual is that of the stored result, after rounding.
    _, residual = naive.stiefel_retract(stored.to(dtype), torch.zeros_like(a, dtype=dtype), 0.0, 0)
    return stored, residual


@stiefel_retract.register_kernel("cuda")
def _(
    w: Tensor,
    a: Tensor,
    eta: float,
    corrections: int,
    lengths: Tensor | None = None,
    unit: bool = True,
    measured: bool = True,
) -> tuple[Tensor, Tensor]:
    with torch.cuda.device(w.device.index):
        each = None if lengths is None else lengths.to(torch.float32).reshape(-1)
        machine, step = machine_of(w.device.index), Step(eta, each, unit)
        return retract_by_kernels(machine, w, a, step, corrections, measured=measured)


@stiefel_retract.register_fake
def _(
    w: Tensor,
    a: Tensor,
    eta: float,
    corrections: int,
    lengths: Tensor | None = None,
    unit: bool = True,
    measured: bool = True,
) -> tuple[Tensor, Tensor]:
    del a, eta, corrections, lengths, unit
    dtype = torch.promote_types(w.dtype, torch.float32)
    return w.new_empty(w.shape), w.new_empty(w.shape[:-2] if measured else 0, dtype=dtype)


@stiefel_retract.register_vmap
def _(
    info: Any,
    in_dims: tuple[Any, ...],
    w: Tensor,
    a: Tensor,
    eta: float,
    corrections: int,
    lengths: Tensor | None = None,
    unit: bool = True,
    measured: bool = True,
) -> tuple[tuple[Tensor, Tensor], tuple[int, int | None]]:
    # `in_dims` leaves out arguments with their default values.
    along = dict(enumerate(in_dims)).get(4)
    w, a = (_first(x, d, info.batch_size) for x, d in ((w, in_dims[0]), (a, in_dims[1])))
    lengths = None if lengths is None else _first(lengths, along, info.batch_size)
    found = stiefel_retract(w, a, eta, corrections, lengths, unit, measured)
    return found, (0, 0 if measured else None)


def _first(x: Tensor, dim: int | None, size: int) -> Tensor:
    """`x` with the mapped dimension first; it is expanded if there is none."""
    return x.unsqueeze(0).expand(size, *x.shape) if dim is None else x.movedim(dim, 0)


@torch.library.custom_op(f"{NAMESPACE}::pre_step_", mutates_args=("momentum",))
def pre_step_(
    momentum: Tensor, gradient: Tensor, mu: float, nesterov: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`naive.pre_step` in place, for devices without kernels, with one part for each matrix.

    Returns Nesterov's look-ahead (empty without Nesterov), `max |·|` of parts of the direction, and for each part
    the sum of squares of its entries divided by it.
    """
    dtype = torch.promote_types(momentum.dtype, torch.float32)
    kept, descended = naive.pre_step(momentum.to(dtype), gradient.to(dtype), mu, nesterov=nesterov)
    momentum.copy_(kept)
    descended = descended.to(gradient.dtype) if nesterov else momentum
    largest = descended.abs().amax(dim=(-2, -1), keepdim=True).to(torch.float32)
    scaled = descended / largest.clamp_min(torch.finfo(torch.float32).tiny)
    squares = scaled.square().sum(dim=(-2, -1), keepdim=True).to(torch.float32)
    out = descended.contiguous() if nesterov else gradient.new_empty(0)
    return out, largest.squeeze(-1), squares.squeeze(-1)


@pre_step_.register_kernel("cuda")
def _(
    momentum: Tensor, gradient: Tensor, mu: float, nesterov: bool
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.cuda.device(momentum.device.index):
        machine = machine_of(momentum.device.index)
        # It must be a view, because it is written to.
        kept = launches.addressable(momentum.view(-1, *momentum.shape[-2:]))
        out = torch.empty_like(gradient, memory_format=torch.contiguous_format)
        to = stack(out) if nesterov else None
        sizes = launches.pre_step_(machine, kept, stack(gradient), to, mu)
        largest, squares = (x.reshape(*momentum.shape[:-2], -1) for x in sizes)
        return out if nesterov else gradient.new_empty(0), largest, squares


@pre_step_.register_fake
def _(
    momentum: Tensor, gradient: Tensor, mu: float, nesterov: bool
) -> tuple[Tensor, Tensor, Tensor]:
    del mu
    parts = 1
    if momentum.device.type == "cuda":
        parts = launches.parts_of_pre_step(momentum.shape[-2], momentum.shape[-1])
    largest, squares = (
        momentum.new_empty((*momentum.shape[:-2], parts), dtype=torch.float32) for _ in range(2)
    )
    return gradient.new_empty(gradient.shape if nesterov else 0), largest, squares
