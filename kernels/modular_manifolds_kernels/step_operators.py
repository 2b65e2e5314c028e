"""The kernels of an optimiser's step as torch operators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modular_manifolds_kernels import certificate, descent, launches, naive
from modular_manifolds_kernels.certificate import Bound
from modular_manifolds_kernels.launches import stack
from modular_manifolds_kernels.machine import machine_of
from modular_manifolds_kernels.operators import NAMESPACE


@torch.library.custom_op(f"{NAMESPACE}::certify_", mutates_args=("a",))
def certify_(
    a: Tensor,
    g: Tensor,
    omega: Tensor,
    scale: Tensor,
    bound: Sequence[float],
    left: Tensor | None = None,
    right: Tensor | None = None,
    info: Tensor | None = None,
) -> Tensor:
    """`naive.certify_`, for devices without kernels. `bound` holds the fields of a `Bound`."""
    pair = None if left is None or right is None else (left, right)
    return naive.certify_(a, g, omega, pair, scale, info, Bound(*bound))


@certify_.register_kernel("cuda")
def _(
    a: Tensor,
    g: Tensor,
    omega: Tensor,
    scale: Tensor,
    bound: Sequence[float],
    left: Tensor | None = None,
    right: Tensor | None = None,
    info: Tensor | None = None,
) -> Tensor:
    with torch.cuda.device(a.device.index):
        # It must be a view, because it is written to.
        direction = a.view(-1, *a.shape[-2:])
        pair = None if left is None or right is None else (stack(left), stack(right))
        gap = certificate.certify_(
            machine_of(a.device.index),
            direction,
            stack(g),
            stack(omega),
            pair,
            scale.reshape(-1),
            None if info is None else info.reshape(-1),
            Bound(*bound),
        )
        return gap.reshape(a.shape[:-2])


@certify_.register_fake
def _(
    a: Tensor,
    g: Tensor,
    omega: Tensor,
    scale: Tensor,
    bound: Sequence[float],
    left: Tensor | None = None,
    right: Tensor | None = None,
    info: Tensor | None = None,
) -> Tensor:
    del g, omega, bound, left, right, info
    return scale.new_empty(a.shape[:-2])


@torch.library.custom_op(f"{NAMESPACE}::descend_", mutates_args=("momenta",))
def descend_(
    momenta: Sequence[Tensor],
    gradients: Sequence[Tensor],
    ok: Tensor,
    mu: float,
    nesterov: bool,
    turned: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    """`naive.descend_`, for devices without kernels."""
    return naive.descend_(gradients, momenta, ok, mu, nesterov=nesterov, turned=turned)


@descend_.register_kernel("cuda")
def _(
    momenta: Sequence[Tensor],
    gradients: Sequence[Tensor],
    ok: Tensor,
    mu: float,
    nesterov: bool,
    turned: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    index = ok.device.index
    with torch.cuda.device(index):
        given = [each.contiguous() for each in gradients]
        return descent.descend_(
            machine_of(index), given, momenta, ok.view(torch.int8), mu,
            nesterov=nesterov, turned=turned,
        )  # fmt: skip


@descend_.register_fake
def _(
    momenta: Sequence[Tensor],
    gradients: Sequence[Tensor],
    ok: Tensor,
    mu: float,
    nesterov: bool,
    turned: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    del momenta, mu, nesterov
    shape = descent.stack_shape(gradients, turned)
    dtype = torch.promote_types(gradients[0].dtype, torch.float32)
    return ok.new_empty(shape, dtype=dtype), ok.new_empty(shape[:2], dtype=dtype)


@torch.library.custom_op(f"{NAMESPACE}::land_", mutates_args=("weights", "masters"))
def land_(
    weights: Sequence[Tensor],
    masters: Sequence[Tensor],
    landed: Tensor,
    start: Tensor,
    moving: Tensor,
    turned: Sequence[bool],
) -> None:
    """`naive.land_`, for devices without kernels."""
    naive.land_(weights, masters, landed, start, moving, turned=turned)


@land_.register_kernel("cuda")
def _(
    weights: Sequence[Tensor],
    masters: Sequence[Tensor],
    landed: Tensor,
    start: Tensor,
    moving: Tensor,
    turned: Sequence[bool],
) -> None:
    with torch.cuda.device(landed.device.index):
        machine, moves = machine_of(landed.device.index), moving.view(torch.int8)
        descent.land_(machine, weights, masters, landed, start, moves, turned=turned)


@land_.register_fake
def _(
    weights: Sequence[Tensor],
    masters: Sequence[Tensor],
    landed: Tensor,
    start: Tensor,
    moving: Tensor,
    turned: Sequence[bool],
) -> None:
    del weights, masters, landed, start, moving, turned


@torch.library.custom_op(f"{NAMESPACE}::gate_", mutates_args=("counts",))
def gate_(largest: Tensor, counts: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """`naive.gate_`, for devices without kernels."""
    return naive.gate_(largest, counts, bound)


@gate_.register_kernel("cuda")
def _(largest: Tensor, counts: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    with torch.cuda.device(largest.device.index):
        ok = torch.empty((), dtype=torch.bool, device=largest.device)
        reached = torch.empty(largest.shape, dtype=torch.bool, device=largest.device)
        flags = ok.view(torch.int8), reached.view(torch.int8)
        launches.gate_(machine_of(largest.device.index), largest, counts, *flags, bound)
        return ok, reached


@gate_.register_fake
def _(largest: Tensor, counts: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    del counts, bound
    return largest.new_empty((), dtype=torch.bool), largest.new_empty(
        largest.shape, dtype=torch.bool
    )


@torch.library.custom_op(f"{NAMESPACE}::unit_length", mutates_args=())
def unit_length(x: Tensor, rows: bool) -> Tensor:
    """`naive.unit_length` of a stack (batch, m, n) in at least float32, for devices without kernels."""
    unit = naive.unit_length(x.to(torch.promote_types(x.dtype, torch.float32)), rows=rows)
    return torch.empty_like(x).copy_(unit)


@unit_length.register_kernel("cuda")
def _(x: Tensor, rows: bool) -> Tensor:
    with torch.cuda.device(x.device.index):
        out = torch.empty_like(x)
        launches.unit_length(machine_of(x.device.index), stack(x), out, rows=rows)
        return out


@unit_length.register_fake
def _(x: Tensor, rows: bool) -> Tensor:
    del rows
    return torch.empty_like(x)
