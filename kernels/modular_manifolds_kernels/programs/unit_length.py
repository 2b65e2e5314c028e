"""A matrix divided by its length, which one launch before has measured in parts."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import CHUNK, TINY

LARGEST = tl.constexpr(3.4028234663852886e38)


@triton.jit
def normal(size):
    """A length within the normal numbers; NaN stays NaN."""
    size = tl.where(size < TINY, TINY, size)
    return tl.where(size > LARGEST, LARGEST, size)


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
    """One tile a program; grid (batch · row tiles · column tiles,), matrix by matrix.

    `largest` and `squares` are those of `pre_step`, without momentum: of each part its largest entry, and the sum of the
    squares of its entries divided by that.
    """
    across = tl.cdiv(k, BLOCK_K)
    count = tl.cdiv(n, BLOCK) * across
    tile = tl.program_id(0) % count
    batch = (tl.program_id(0) // count).to(tl.int64)
    lanes = tl.arange(0, CHUNK)
    largest += batch * parts
    squares += batch * parts
    most = tl.zeros((CHUNK,), tl.float32)
    for start in range(0, parts, CHUNK):
        found = tl.load(largest + start + lanes, mask=lanes < parts - start, other=0.0)
        most = tl.maximum(most, found)
    whole = tl.maximum(tl.max(most, 0), TINY)
    total = tl.zeros((CHUNK,), tl.float32)
    for start in range(0, parts, CHUNK):
        inside = lanes < parts - start
        share = tl.load(largest + start + lanes, mask=inside, other=0.0) / whole
        total += share * share * tl.load(squares + start + lanes, mask=inside, other=0.0)
    size = normal(whole * tl.sqrt(tl.sum(total, 0)))
    top = ((tile // across) * BLOCK).to(tl.int64)
    left = ((tile % across) * BLOCK_K).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    columns = tl.arange(0, BLOCK_K)[None, :]
    valid = (rows < n - top) & (columns < k - left)
    x += batch * x_batch + top * x_row + left * x_column
    out += batch * out_batch + top * out_row + left * out_column
    value = tl.load(x + rows * x_row + columns * x_column, mask=valid, other=0.0).to(tl.float32)
    value = (value / size).to(out.dtype.element_ty)
    tl.store(out + rows * out_row + columns * out_column, value, mask=valid)
