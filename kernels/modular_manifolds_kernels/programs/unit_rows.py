"""Each row of a matrix divided by its length."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import MIN_NORMAL
from modular_manifolds_kernels.programs.unit_length import clamp_to_normal


@triton.jit
def unit_rows(
    x,
    out,
    n,
    k,
    x_batch,
    x_row,
    x_column,
    out_batch,
    out_row,
    out_column,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Each program handles a block of whole rows; grid (batch · row blocks,), matrix by matrix."""
    blocks = tl.cdiv(n, BLOCK)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    top = ((tl.program_id(0) % blocks) * BLOCK).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    strip = tl.arange(0, BLOCK_K)[None, :]
    x += batch * x_batch + top * x_row + rows * x_row + strip * x_column
    out += batch * out_batch + top * out_row + rows * out_row + strip * out_column
    largest = tl.zeros((BLOCK,), tl.float32) + MIN_NORMAL
    squares = tl.zeros((BLOCK,), tl.float32)
    at = x
    for start in range(0, k, BLOCK_K):
        valid = (rows < n - top) & (strip < k - start)
        value = tl.load(at, mask=valid, other=0.0).to(tl.float32)
        # Entries are divided by the largest one so far before squaring.
        new_largest = tl.maximum(largest, tl.max(tl.abs(value), 1))
        shrunk, scaled = largest / new_largest, value / new_largest[:, None]
        squares = squares * shrunk * shrunk + tl.sum(scaled * scaled, 1)
        largest = new_largest
        at += BLOCK_K * x_column
    size = clamp_to_normal(largest * tl.sqrt(squares))[:, None]
    for start in range(0, k, BLOCK_K):
        valid = (rows < n - top) & (strip < k - start)
        value = tl.load(x, mask=valid, other=0.0).to(tl.float32)
        tl.store(out, (value / size).to(out.dtype.element_ty), mask=valid)
        x += BLOCK_K * x_column
        out += BLOCK_K * out_column
