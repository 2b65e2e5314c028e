"""`a I + b A + c A B` for symmetric A, B that commute; one triangle is computed and mirrored."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import (
    inverse_length,
    operand,
    store_mirrored,
    triangle,
)


@triton.jit
def polynomial(
    left,
    right,
    out,
    squares,
    a,
    b,
    c,
    n,
    parts,
    left_batch,
    left_row,
    right_batch,
    right_row,
    out_batch,
    out_row,
    SCALED: tl.constexpr,
    HALF: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Each program computes one tile of the lower triangle; grid (batch · tiles (tiles + 1) / 2,), matrix by matrix.

    If SCALED is 1, A is divided by its norm, from the `parts` sums of squares in `squares`; if SCALED is 2, A and B
    are. B is symmetric, so its columns are read as rows.
    """
    tiles = tl.cdiv(n, BLOCK)
    count = tiles * (tiles + 1) // 2
    batch = (tl.program_id(0) // count).to(tl.int64)
    row, column = triangle(tl.program_id(0) % count)
    first = left + batch * left_batch + (row * BLOCK).to(tl.int64) * left_row
    second = right + batch * right_batch + (column * BLOCK).to(tl.int64) * right_row
    third = first + column * BLOCK
    lanes = tl.arange(0, BLOCK)
    inner = tl.arange(0, BLOCK_K)
    rows = row * BLOCK + lanes
    columns = column * BLOCK + lanes
    tile = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, n, BLOCK_K):
        inside = inner < n - start
        p = tl.load(
            first + lanes[:, None] * left_row + inner[None, :],
            mask=(rows[:, None] < n) & inside[None, :],
            other=0.0,
        )
        q = tl.load(
            second + lanes[None, :] * right_row + inner[:, None],
            mask=(columns[None, :] < n) & inside[:, None],
            other=0.0,
        )
        tile = tl.dot(operand(p, HALF), operand(q, HALF), tile, input_precision=PRECISION)
        first += BLOCK_K
        second += BLOCK_K
    if SCALED > 0:
        scale = inverse_length(squares + batch * parts, parts)
        b *= scale
        c *= scale
        if SCALED > 1:
            c *= scale
    valid = (rows[:, None] < n) & (columns[None, :] < n)
    linear = tl.load(third + lanes[:, None] * left_row + lanes[None, :], mask=valid, other=0.0)
    scaled_identity = tl.where(rows[:, None] == columns[None, :], a, 0.0)
    tile = scaled_identity + b * linear.to(tl.float32) + c * tile
    store_mirrored(out + batch * out_batch, tile, row, column, n, out_row, BLOCK)
