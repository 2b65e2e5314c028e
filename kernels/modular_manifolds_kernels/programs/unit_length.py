"""A matrix divided by its Frobenius norm, from the partial norms of an earlier launch."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import CHUNK_ENTRIES, MIN_NORMAL

MAX_NORMAL = tl.constexpr(3.4028234663852886e38)
"""The largest number of float32."""


@triton.jit
def clamp_to_normal(size):
    """A length, clamped to the normal numbers; NaN stays NaN."""
    size = tl.where(size < MIN_NORMAL, MIN_NORMAL, size)
    return tl.where(size > MAX_NORMAL, MAX_NORMAL, size)


@triton.jit
def unit_length(
    x,
    out,
    largest,
    squares,
    n,
    k,
    parts,
    x_batch,
    x_row,
    x_column,
    out_batch,
    out_row,
    out_column,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Each program handles one tile; grid (batch · row tiles · column tiles,), matrix by matrix.

    `largest` and `squares` are those of `pre_step` without momentum: for each part its largest entry, and the sum of
    squares of its entries divided by it.
    """
    column_tiles = tl.cdiv(k, BLOCK_K)
    count = tl.cdiv(n, BLOCK) * column_tiles
    tile = tl.program_id(0) % count
    batch = (tl.program_id(0) // count).to(tl.int64)
    lanes = tl.arange(0, CHUNK_ENTRIES)
    largest += batch * parts
    squares += batch * parts
    maxima = tl.zeros((CHUNK_ENTRIES,), tl.float32)
    for start in range(0, parts, CHUNK_ENTRIES):
        part_maxima = tl.load(largest + start + lanes, mask=lanes < parts - start, other=0.0)
        maxima = tl.maximum(maxima, part_maxima)
    maximum = tl.maximum(tl.max(maxima, 0), MIN_NORMAL)
    total = tl.zeros((CHUNK_ENTRIES,), tl.float32)
    for start in range(0, parts, CHUNK_ENTRIES):
        inside = lanes < parts - start
        share = tl.load(largest + start + lanes, mask=inside, other=0.0) / maximum
        total += share * share * tl.load(squares + start + lanes, mask=inside, other=0.0)
    size = clamp_to_normal(maximum * tl.sqrt(tl.sum(total, 0)))
    top = ((tile // column_tiles) * BLOCK).to(tl.int64)
    left = ((tile % column_tiles) * BLOCK_K).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    columns = tl.arange(0, BLOCK_K)[None, :]
    valid = (rows < n - top) & (columns < k - left)
    x += batch * x_batch + top * x_row + left * x_column
    out += batch * out_batch + top * out_row + left * out_column
    value = tl.load(x + rows * x_row + columns * x_column, mask=valid, other=0.0).to(tl.float32)
    value = (value / size).to(out.dtype.element_ty)
    tl.store(out + rows * out_row + columns * out_column, value, mask=valid)
