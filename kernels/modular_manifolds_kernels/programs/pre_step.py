"""Momentum, Nesterov's look-ahead and partial norms of the result, in one pass over memory."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import MIN_NORMAL


@triton.jit
def pre_step(
    momentum,
    gradient,
    out,
    largest,
    squares,
    mu,
    n,
    k,
    momentum_batch,
    momentum_row,
    momentum_column,
    gradient_batch,
    gradient_row,
    gradient_column,
    out_batch,
    out_row,
    out_column,
    MOMENTUM: tl.constexpr,
    NESTEROV: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Each program handles one tile; grid (batch · row tiles · column tiles,), matrix by matrix.

    The largest entry of the tile is written to `largest`, and the sum of squares of its entries divided by it to
    `squares`. Without MOMENTUM only these two are computed, for the gradient.
    """
    column_tiles = tl.cdiv(k, BLOCK_K)
    count = tl.cdiv(n, BLOCK) * column_tiles
    tile = tl.program_id(0) % count
    batch = (tl.program_id(0) // count).to(tl.int64)
    top = ((tile // column_tiles) * BLOCK).to(tl.int64)
    left = ((tile % column_tiles) * BLOCK_K).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    columns = tl.arange(0, BLOCK_K)[None, :]
    valid = (rows < n - top) & (columns < k - left)
    at = gradient + batch * gradient_batch + top * gradient_row + left * gradient_column
    at += rows * gradient_row + columns * gradient_column
    value = tl.load(at, mask=valid, other=0.0).to(tl.float32)
    if MOMENTUM:
        to = momentum + batch * momentum_batch + top * momentum_row + left * momentum_column
        to += rows * momentum_row + columns * momentum_column
        new_momentum = tl.load(to, mask=valid, other=0.0).to(tl.float32)
        new_momentum = mu * new_momentum + (1.0 - mu) * value
        tl.store(to, new_momentum.to(momentum.dtype.element_ty), mask=valid)
        if NESTEROV:
            value = mu * new_momentum + (1.0 - mu) * value
            rounded = value.to(out.dtype.element_ty)
            to = out + batch * out_batch + top * out_row + left * out_column
            to += rows * out_row + columns * out_column
            tl.store(to, rounded, mask=valid)
            value = rounded.to(tl.float32)
        else:
            value = new_momentum.to(momentum.dtype.element_ty).to(tl.float32)
    maximum = tl.max(tl.max(tl.abs(value), 1), 0)
    scaled = value * (1.0 / tl.maximum(maximum, MIN_NORMAL))
    part = batch * count + tile
    tl.store(largest + part, maximum)
    tl.store(squares + part, tl.sum(tl.sum(scaled * scaled, 1), 0))
