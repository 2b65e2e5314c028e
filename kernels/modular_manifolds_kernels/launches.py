"""One function for each kernel, which launches it with shapes and strides. All matrices are stacks (batch, n, k), n ≤ k."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.shipped import TARGETS, Configuration, Precision, choose

TILE_MAX_SIDE = 256
"""The longest side of a tile, in entries."""


@dataclass(frozen=True)
class Sizes:
    """Scalars that one launch computes for the next.

    Args:
        largest: `max |x|` of each part of a matrix, shape (batch, parts).
        squares: sums of squares of each part of the Gram matrix, shape (batch, tiles).
        scales: written by `apply`: the scale by which each matrix was divided, shape (batch,).
    """

    largest: Tensor
    squares: Tensor
    scales: Tensor


@dataclass(frozen=True)
class Step:
    """The length of a step, in numbers that a kernel reads on the device.

    Args:
        eta: a factor of every length.
        lengths: one number for each matrix, shape (batch,), float32; None for ones.
        unit: whether the direction is multiplied by the length; if not, it is the whole step.
    """

    eta: float
    lengths: Tensor | None
    unit: bool

    def arguments(self, device: torch.device) -> tuple[Tensor, float, int, int]:
        """The kernels' arguments: lengths, eta, each (the stride of lengths), unit."""
        if self.lengths is None:
            return _one(device), self.eta, 0, int(self.unit)
        return self.lengths, self.eta, self.lengths.stride(0), int(self.unit)


@functools.cache
def _one(device: torch.device) -> Tensor:
    return torch.ones(1, dtype=torch.float32, device=device)


def stack(x: Tensor) -> Tensor:
    """`x` of shape (*batch, m, n) as (batch, m, n) with offsets of a tile in 32 bits; a view if possible.

    Raises:
        ValueError: its rows are too long for 32-bit offsets.
    """
    flat = x.reshape(-1, x.shape[-2], x.shape[-1])
    return addressable(flat if _fits_32_bits(flat) else flat.contiguous())


def addressable(x: Tensor) -> Tensor:
    """`x` of shape (batch, m, n), checked for 32-bit offsets in a tile.

    Raises:
        ValueError: offsets in a tile do not fit 32 bits.
    """
    if not _fits_32_bits(x):
        raise ValueError(
            f"a tile of at most {TILE_MAX_SIDE} rows and columns must span fewer than 2³¹ entries on cuda,"
            f" got a {x.shape[1]:,}×{x.shape[2]:,} matrix with strides {x.stride()[1:]}."
            " Pass it with the long side first, contiguous."
        )
    return x


def _fits_32_bits(x: Tensor) -> bool:
    sides = zip(x.shape[1:], x.stride()[1:], strict=True)
    return sum((min(size, TILE_MAX_SIDE) - 1) * stride for size, stride in sides) < 1 << 31


def as_wide(x: Tensor) -> Tensor:
    """`x`, or its transposed view if it has more rows than columns."""
    return x if x.shape[-2] <= x.shape[-1] else x.mT


def layout(x: Tensor) -> str:
    """The layout in the table for `x`: "columns" if its short side is contiguous, else "rows"."""
    return "columns" if x.stride(-2) == 1 and x.stride(-1) != 1 else "rows"


def empty_like(x: Tensor, dtype: torch.dtype) -> Tensor:
    """An empty stack of the shape and layout of `x`."""
    batch, n, k = x.shape
    if layout(x) == "columns":
        return torch.empty(batch, k, n, dtype=dtype, device=x.device).mT
    return torch.empty(batch, n, k, dtype=dtype, device=x.device)


def storage(precision: Precision) -> torch.dtype:
    """The dtype of matrices between two launches."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def scratch(row: Configuration, x: Tensor, *, squares: int) -> tuple[Tensor, int]:
    """The workspace of a program in tiles: for each matrix, X padded to whole tiles and some square matrices.

    Returns the workspace and the width of X in it.
    """
    batch, _, k = x.shape
    side, tile = int(row.constexprs["BLOCK"]), int(row.constexprs["TILE"])
    width = -(-k // tile) * tile
    workspace = torch.empty(
        batch, side, width + squares * side, dtype=torch.float32, device=x.device
    )
    return workspace, width


def _required(row: Configuration | None) -> Configuration:
    assert row is not None, "the table holds every kernel that is launched"
    return row


def _tiles(length: int, block: int | str | bool) -> int:
    return -(-length // int(block))


def _triangle(n: int, block: int | str | bool) -> int:
    tiles = _tiles(n, block)
    return tiles * (tiles + 1) // 2


def largest_entries(machine: Machine, x: Tensor) -> Tensor:
    """`max |x|` of parts of each matrix, shape (batch, parts); X of shape (batch, m, n)."""
    return _measure_parts(machine, x)[0]


def _measure_parts(machine: Machine, x: Tensor) -> tuple[Tensor, Tensor]:
    """`max |x|` of parts of each matrix, and for each part the sum of squares of its entries divided by it."""
    row = _required(choose("pre_step", "fp32", machine.target, MOMENTUM=False, NESTEROV=False))
    return _pre_step(machine, row, x, x, x, 0.0)


def unit_length(machine: Machine, x: Tensor, out: Tensor, *, rows: bool) -> None:
    """Write `X / ‖X‖` of each matrix or each row to `out`; both have shape (batch, m, n)."""
    batch, n, k = x.shape
    if rows:
        row = _required(choose("unit_rows", "fp32", machine.target))
        grid = (batch * _tiles(n, row.constexprs["BLOCK"]),)
        machine.launch(row, grid, x, out, n, k, *x.stride(), *out.stride())
        return
    if layout(out) == "columns":
        # Neighbours in a tile's long side should be neighbours in memory.
        x, out = x.mT, out.mT
        _, n, k = x.shape
    largest, squares = _measure_parts(machine, x)
    row = _required(choose("unit_length", "fp32", machine.target))
    grid = (batch * _tiles(n, row.constexprs["BLOCK"]) * _tiles(k, row.constexprs["BLOCK_K"]),)
    sizes = (n, k, largest.shape[1])
    machine.launch(row, grid, x, out, largest, squares, *sizes, *x.stride(), *out.stride())


def pre_step_(
    machine: Machine, momentum: Tensor, gradient: Tensor, out: Tensor | None, mu: float
) -> tuple[Tensor, Tensor]:
    """Update `momentum` in place; write Nesterov's look-ahead to `out` if there is one.

    Tensors have shape (batch, m, n). Returns `max |·|` of parts of the direction, and for each part the sum of
    squares of its entries divided by it, each of shape (batch, parts).
    """
    row = _required(
        choose("pre_step", "fp32", machine.target, MOMENTUM=True, NESTEROV=out is not None)
    )
    return _pre_step(machine, row, momentum, gradient, momentum if out is None else out, mu)


def parts_of_pre_step(m: int, n: int) -> int:
    """The number of parts of a matrix m×n in the pre-step; it is the same on every target."""
    row = _required(choose("pre_step", "fp32", TARGETS[0], MOMENTUM=True, NESTEROV=True))
    return _tiles(m, row.constexprs["BLOCK"]) * _tiles(n, row.constexprs["BLOCK_K"])


def _pre_step(
    machine: Machine,
    row: Configuration,
    momentum: Tensor,
    gradient: Tensor,
    out: Tensor,
    mu: float,
) -> tuple[Tensor, Tensor]:
    batch, m, n = gradient.shape
    tiles = parts_of_pre_step(m, n)
    largest, squares = (gradient.new_empty(batch, tiles, dtype=torch.float32) for _ in range(2))
    arguments = (momentum, gradient, out, largest, squares, mu, m, n)
    strides = (*momentum.stride(), *gradient.stride(), *out.stride())
    machine.launch(row, (batch * tiles,), *arguments, *strides)
    return largest, squares


def move(machine: Machine, w: Tensor, a: Tensor, out: Tensor, step: Step) -> None:
    """Write `(W + fA)/√(1 + η²)` to `out`, f the factor of the step; all of shape (batch, n, k)."""
    row = _required(choose("move", "fp32", machine.target))
    if layout(out) == "columns":
        # Neighbours in a tile's long side should be neighbours in memory.
        w, a, out = w.mT, a.mT, out.mT
    batch, n, k = out.shape
    grid = (batch * _tiles(n, row.constexprs["BLOCK"]) * _tiles(k, row.constexprs["BLOCK_K"]),)
    strides = (*w.stride(), *a.stride(), *out.stride())
    machine.launch(row, grid, w, a, out, *step.arguments(out.device), n, k, *strides)


def gram(
    machine: Machine, x: Tensor, precision: Precision, largest: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`X Xᵀ`, and sums of squares of its parts; with `largest`, X is divided by its largest entry first."""
    batch, n, k = x.shape
    scaled = largest is not None
    row = _required(choose("gram", precision, machine.target, layout=layout(x), SCALED=scaled))
    tiles = _triangle(n, row.constexprs["BLOCK"])
    r = torch.empty(batch, n, n, dtype=storage(precision), device=x.device)
    squares = torch.empty(batch, tiles, dtype=torch.float32, device=x.device)
    parts = squares if largest is None else largest
    strides = (*x.stride(), *r.stride()[:2], parts.shape[1])
    machine.launch(row, (batch * tiles,), x, r, parts, squares, n, k, *strides)
    return r, squares


def polynomial(
    machine: Machine,
    left: Tensor,
    right: Tensor,
    coefficients: tuple[float, float, float],
    precision: Precision,
    *,
    sizes: Sizes | None = None,
    scaled: int = 0,
) -> Tensor:
    """`a I + b A + c A B`; A is divided by its Frobenius norm if `scaled` is 1, A and B if it is 2."""
    batch, n, _ = left.shape
    row = _required(choose("polynomial", precision, machine.target, SCALED=scaled))
    out = torch.empty(batch, n, n, dtype=storage(precision), device=left.device)
    grid = (batch * _triangle(n, row.constexprs["BLOCK"]),)
    # Without scaling the kernel does not read this pointer.
    squares = out if sizes is None else sizes.squares
    parts = 0 if sizes is None else sizes.squares.shape[1]
    strides = (*left.stride()[:2], *right.stride()[:2], *out.stride()[:2])
    machine.launch(row, grid, left, right, out, squares, *coefficients, n, parts, *strides)
    return out


def apply(
    machine: Machine,
    p: Tensor,
    x: Tensor,
    a: float,
    c: float,
    precision: Precision,
    *,
    out: Tensor,
    sizes: Sizes | None = None,
) -> Tensor:
    """Write `a X + c P X` to `out`; with `sizes`, X is normalised first."""
    batch, n, k = x.shape
    scaled = sizes is not None
    row = _required(choose("apply", precision, machine.target, layout=layout(x), SCALED=scaled))
    block = row.constexprs["BLOCK"]
    # Without scaling the kernel does not use these pointers.
    scalars_or_out = Sizes(out, out, out) if sizes is None else sizes
    counts = (
        (0, 0)
        if sizes is None
        else (scalars_or_out.largest.shape[1], scalars_or_out.squares.shape[1])
    )
    scalars = (scalars_or_out.largest, scalars_or_out.squares, scalars_or_out.scales)
    strides = (*p.stride()[:2], *x.stride(), *out.stride())
    grid = (batch * _tiles(n, block) * _tiles(k, block),)
    machine.launch(row, grid, p, x, out, *scalars, a, c, n, k, *counts, *strides)
    return out


def gate_(
    machine: Machine, largest: Tensor, counts: Tensor, ok: Tensor, reached: Tensor, bound: float
) -> None:
    """`naive.gate_` by kernels: writes `ok`, one int8, and `reached`, one int8 for each weight."""
    row = _required(choose("gate", "fp32", machine.target))
    machine.launch(row, (1,), largest, counts, ok, reached, bound, largest.shape[0])
