"""`a X + c P X` for a symmetric P."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import (
    inverse_largest,
    inverse_root,
    operand,
    scale_of,
    sum_of_parts,
)


@triton.jit
def apply(
    p,
    x,
    out,
    largest,
    squares,
    scales,
    a,
    c,
    n,
    k,
    parts,
    tiles,
    p_batch,
    p_row,
    x_batch,
    x_row,
    x_column,
    out_batch,
    out_row,
    out_column,
    SCALED: tl.constexpr,
    HALF: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Each program computes one tile; grid (batch · column tiles · row tiles,); neighbours share columns.

    With SCALED, X is divided by its largest entry as it is loaded, and the result by the square root of the norm of
    its Gram matrix, from the `tiles` sums of squares in `squares`. The product of both divisors, the scale of X, is
    written to `scales`.
    """
    down_tiles = tl.cdiv(n, BLOCK)
    count = down_tiles * tl.cdiv(k, BLOCK)
    index = tl.program_id(0) % count
    batch = (tl.program_id(0) // count).to(tl.int64)
    row = index % down_tiles
    column = index // down_tiles
    down = (row * BLOCK).to(tl.int64)
    across = (column * BLOCK).to(tl.int64)
    left = p + batch * p_batch + down * p_row
    right = x + batch * x_batch + across * x_column
    at = right + down * x_row
    out += batch * out_batch + down * out_row + across * out_column
    lanes = tl.arange(0, BLOCK)
    inner = tl.arange(0, BLOCK_K)
    rows = row * BLOCK + lanes
    columns = column * BLOCK + lanes
    scale = 1.0
    if SCALED:
        scale = inverse_largest(largest + batch * parts, parts)
    tile = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, n, BLOCK_K):
        inside = inner < n - start
        u = tl.load(
            left + lanes[:, None] * p_row + inner[None, :],
            mask=(rows[:, None] < n) & inside[None, :],
            other=0.0,
        )
        v = tl.load(
            right + inner[:, None] * x_row + lanes[None, :] * x_column,
            mask=inside[:, None] & (columns[None, :] < k),
            other=0.0,
        )
        if SCALED:
            v = v.to(tl.float32) * scale
        tile = tl.dot(operand(u, HALF), operand(v, HALF), tile, input_precision=PRECISION)
        left += BLOCK_K
        right += BLOCK_K * x_row
    valid = (rows[:, None] < n) & (columns[None, :] < k)
    at += lanes[:, None] * x_row + lanes[None, :] * x_column
    linear = tl.load(at, mask=valid, other=0.0).to(tl.float32)
    if SCALED:
        linear *= scale
    tile = a * linear + c * tile
    if SCALED:
        total = sum_of_parts(squares + batch * tiles, tiles)
        tile *= tl.sqrt(inverse_root(total))
        tl.store(scales + batch, scale_of(1.0 / scale, total), mask=index == 0)
    value = tile.to(out.dtype.element_ty)
    tl.store(out + lanes[:, None] * out_row + lanes[None, :] * out_column, value, mask=valid)
