"""Weights that lie apart, by kernels: one launch takes up to `TOGETHER` of them if they have one orientation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from modular_manifolds_kernels.configuration import TOGETHER as TOGETHER
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.shipped import Configuration, Precision, choose

HALF: Final = (torch.bfloat16, torch.float16)


def descend_(
    machine: Machine,
    gradients: Sequence[Tensor],
    momenta: Sequence[Tensor],
    ok: Tensor,
    mu: float,
    *,
    nesterov: bool,
    turned: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    """`naive.descend_` by kernels: a stack (batch, n, k), and the largest entry of each of its rows, (batch, n)."""
    device, held = gradients[0].device, len(momenta) > 0
    batch, n, k = stack_shape(gradients, turned)
    out = torch.empty(batch, n, k, dtype=torch.float32, device=device)
    largest = torch.empty(batch, n, dtype=torch.float32, device=device)
    row = _row(machine, "descend", gradients[0].dtype, MOMENTUM=held, NESTEROV=nesterov and held)
    matrices = batch // len(gradients)
    for taken, grid, sizes in _launches(row, matrices, n, k, turned):
        lists = _filled(gradients[taken]), _filled((momenta or gradients)[taken])
        first = taken.start * matrices
        machine.launch(row, grid, *lists, ok, out[first:], largest[first:], mu, *sizes)
    return out, largest


def land_(
    machine: Machine,
    weights: Sequence[Tensor],
    masters: Sequence[Tensor],
    landed: Tensor,
    start: Tensor,
    moving: Tensor,
    *,
    turned: Sequence[bool],
) -> None:
    """`naive.land_` by kernels; the stacks of shape (batch, n, k), `moving` int8 of shape (batch, n)."""
    batch, n, k = landed.shape
    row = _row(machine, "land", torch.bfloat16 if masters else torch.float32)
    matrices = batch // len(weights)
    for taken, grid, sizes in _launches(row, matrices, n, k, turned):
        lists = _filled(weights[taken]), _filled((masters or weights)[taken])
        stacks = [x[taken.start * matrices :] for x in (landed, start, moving)]
        strides = [stride for x in stacks for stride in x.stride()]
        machine.launch(row, grid, *lists, *stacks, *sizes, *strides)


def stack_shape(tensors: Sequence[Tensor], turned: Sequence[bool]) -> tuple[int, int, int]:
    """The shape of the stack of these tensors."""
    *batch, n, k = tensors[0].shape
    n, k = (k, n) if turned[0] else (n, k)
    return len(tensors) * math.prod(batch), n, k


def _row(machine: Machine, kernel: str, dtype: torch.dtype, **flags: bool) -> Configuration:
    precision: Precision = "bf16" if dtype in HALF else "fp32"
    row = choose(kernel, precision, machine.target, **flags)
    assert row is not None, "the table holds every kernel that is launched"
    return row


def _launches(
    row: Configuration, matrices: int, n: int, k: int, turned: Sequence[bool]
) -> Iterator[tuple[slice, tuple[int], tuple[int, int, int, int, int]]]:
    """The weights of each launch, its grid, and its sizes with the strides of rows and columns in a weight."""
    blocks = -(-n // int(row.constexprs["BLOCK"]))
    for turn, places in itertools.groupby(range(len(turned)), key=lambda place: turned[place]):
        whole = list(places)
        for first in range(whole[0], whole[-1] + 1, TOGETHER):
            taken = slice(first, min(first + TOGETHER, whole[-1] + 1))
            grid = ((taken.stop - first) * matrices * blocks,)
            down, across = (1, n) if turn else (k, 1)
            yield taken, grid, (n, k, matrices, down, across)


def _filled(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """As many tensors as a kernel takes: those beyond the weights are never chosen."""
    return (*tensors, *[tensors[0]] * (TOGETHER - len(tensors)))
