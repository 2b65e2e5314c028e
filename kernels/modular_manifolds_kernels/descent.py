"""Kernels on lists of weights: one launch takes up to `TENSORS_PER_LAUNCH` weights of one orientation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from modular_manifolds_kernels.configuration import TENSORS_PER_LAUNCH as TENSORS_PER_LAUNCH
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.shipped import Configuration, Precision, choose

HALF_DTYPES: Final = (torch.bfloat16, torch.float16)


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
    device, has_momenta = gradients[0].device, len(momenta) > 0
    batch, n, k = stack_shape(gradients, turned)
    out = torch.empty(batch, n, k, dtype=torch.float32, device=device)
    largest = torch.empty(batch, n, dtype=torch.float32, device=device)
    row = _row(
        machine,
        "descend",
        gradients[0].dtype,
        MOMENTUM=has_momenta,
        NESTEROV=nesterov and has_momenta,
    )
    matrices = batch // len(gradients)
    for in_launch, grid, sizes in _launches(row, matrices, n, k, turned):
        lists = _padded(gradients[in_launch]), _padded((momenta or gradients)[in_launch])
        first = in_launch.start * matrices
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
    for in_launch, grid, sizes in _launches(row, matrices, n, k, turned):
        lists = _padded(weights[in_launch]), _padded((masters or weights)[in_launch])
        stacks = [x[in_launch.start * matrices :] for x in (landed, start, moving)]
        strides = [stride for x in stacks for stride in x.stride()]
        machine.launch(row, grid, *lists, *stacks, *sizes, *strides)


def stack_shape(tensors: Sequence[Tensor], turned: Sequence[bool]) -> tuple[int, int, int]:
    """The shape of the stack of these tensors."""
    *batch, n, k = tensors[0].shape
    n, k = (k, n) if turned[0] else (n, k)
    return len(tensors) * math.prod(batch), n, k


def _row(machine: Machine, kernel: str, dtype: torch.dtype, **flags: bool) -> Configuration:
    precision: Precision = "bf16" if dtype in HALF_DTYPES else "fp32"
    row = choose(kernel, precision, machine.target, **flags)
    assert row is not None, "the table holds every kernel that is launched"
    return row


def _launches(
    row: Configuration, matrices: int, n: int, k: int, turned: Sequence[bool]
) -> Iterator[tuple[slice, tuple[int], tuple[int, int, int, int, int]]]:
    """For each launch: its weights, its grid, and its sizes with the strides of rows and columns of a weight."""
    blocks = -(-n // int(row.constexprs["BLOCK"]))
    for is_turned, places in itertools.groupby(range(len(turned)), key=lambda place: turned[place]):
        run = list(places)
        for first in range(run[0], run[-1] + 1, TENSORS_PER_LAUNCH):
            in_launch = slice(first, min(first + TENSORS_PER_LAUNCH, run[-1] + 1))
            grid = ((in_launch.stop - first) * matrices * blocks,)
            row_stride, column_stride = (1, n) if is_turned else (k, 1)
            yield in_launch, grid, (n, k, matrices, row_stride, column_stride)


def _padded(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The tensors, padded to the length of a kernel's list; the padding is never selected."""
    return (*tensors, *[tensors[0]] * (TENSORS_PER_LAUNCH - len(tensors)))
