"""Momentum, Nesterov's combination and the size of the result, in one pass over memory."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import TINY


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
    """One tile a program; grid (batch · row tiles · column tiles,), matrix by matrix.

    `largest` receives the largest entry of the tile, `squares` the sum of the squares of its entries
    divided by that. Without MOMENTUM, only these two: of the gradient.
    """
    across = tl.cdiv(k, BLOCK_K)
    count = tl.cdiv(n, BLOCK) * across
    tile = tl.program_id(0) % count
    batch = (tl.program_id(0) // count).to(tl.int64)
    top = ((tile // across) * BLOCK).to(tl.int64)
    left = ((tile % across) * BLOCK_K).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    columns = tl.arange(0, BLOCK_K)[None, :]
    valid = (rows < n - top) & (columns < k - left)
    at = gradient + batch * gradient_batch + top * gradient_row + left * gradient_column
    at += rows * gradient_row + columns * gradient_column
    value = tl.load(at, mask=valid, other=0.0).to(tl.float32)
    if MOMENTUM:
        to = momentum + batch * momentum_batch + top * momentum_row + left * momentum_column
        to += rows * momentum_row + columns * momentum_column
        kept = tl.load(to, mask=valid, other=0.0).to(tl.float32)
        kept = mu * kept + (1.0 - mu) * value
        tl.store(to, kept.to(momentum.dtype.element_ty), mask=valid)
        if NESTEROV:
            value = mu * kept + (1.0 - mu) * value
            rounded = value.to(out.dtype.element_ty)
            to = out + batch * out_batch + top * out_row + left * out_column
            to += rows * out_row + columns * out_column
            tl.store(to, rounded, mask=valid)
            value = rounded.to(tl.float32)
        else:
            value = kept.to(momentum.dtype.element_ty).to(tl.float32)
    found = tl.max(tl.max(tl.abs(value), 1), 0)
    scaled = value * (1.0 / tl.maximum(found, TINY))
    part = batch * count + tile
    tl.store(largest + part, found)
    tl.store(squares + part, tl.sum(tl.sum(scaled * scaled, 1), 0))
