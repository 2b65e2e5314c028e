"""`R = X Xᵀ`: one triangle is computed and mirrored."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import (
    inverse_largest,
    operand,
    store_mirrored,
    triangle,
)


@triton.jit
def gram(
    x,
    r,
    largest,
    squares,
    n,
    k,
    x_batch,
    x_row,
    x_column,
    r_batch,
    r_row,
    parts,
    SCALED: tl.constexpr,
    HALF: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Each program computes one tile of the lower triangle; grid (batch · tiles (tiles + 1) / 2,), matrix by matrix.

    With SCALED, X is divided by its largest entry (from the `parts` maxima of each matrix) as it is loaded, and the sum
    of squares of this tile and its mirror image is written to `squares`.
    """
    tiles = tl.cdiv(n, BLOCK)
    count = tiles * (tiles + 1) // 2
    index = tl.program_id(0) % count
    batch = (tl.program_id(0) // count).to(tl.int64)
    row, column = triangle(index)
    x += batch * x_batch
    # The offset of a tile's corner needs 64 bits; offsets inside the tile fit 32 bits.
    left = x + (row * BLOCK).to(tl.int64) * x_row
    right = x + (column * BLOCK).to(tl.int64) * x_row
    lanes = tl.arange(0, BLOCK)
    inner = tl.arange(0, BLOCK_K)
    rows = row * BLOCK + lanes
    columns = column * BLOCK + lanes
    scale = 1.0
    if SCALED:
        scale = inverse_largest(largest + batch * parts, parts)
    tile = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, k, BLOCK_K):
        inside = inner < k - start
        a = tl.load(
            left + lanes[:, None] * x_row + inner[None, :] * x_column,
            mask=(rows[:, None] < n) & inside[None, :],
            other=0.0,
        )
        b = tl.load(
            right + lanes[None, :] * x_row + inner[:, None] * x_column,
            mask=(columns[None, :] < n) & inside[:, None],
            other=0.0,
        )
        if SCALED:
            a = a.to(tl.float32) * scale
            b = b.to(tl.float32) * scale
        tile = tl.dot(operand(a, HALF), operand(b, HALF), tile, input_precision=PRECISION)
        left += BLOCK_K * x_column
        right += BLOCK_K * x_column
    store_mirrored(r + batch * r_batch, tile, row, column, n, r_row, BLOCK)
    if SCALED:
        # Squares are those of the stored, rounded entries. Rows and columns past the end are zero.
        stored = tile.to(r.dtype.element_ty).to(tl.float32)
        lower = tl.where(rows[:, None] > columns[None, :], 2.0, 1.0)
        lower = tl.where(rows[:, None] < columns[None, :], 0.0, lower)
        total = tl.sum(tl.sum(lower * stored * stored, 1), 0)
        tl.store(squares + batch * count + index, total)
