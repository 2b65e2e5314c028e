"""Partial inner products of two or three pairs of matrices, in one pass over memory."""

import triton
import triton.language as tl


@triton.jit
def part_of(
    x,
    y,
    tile,
    n,
    k,
    x_row,
    x_column,
    y_row,
    y_column,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """`Σ x y` over one tile; zero past the last tile."""
    column_tiles = tl.cdiv(k, BLOCK_K)
    top = ((tile // column_tiles) * BLOCK).to(tl.int64)
    left = ((tile % column_tiles) * BLOCK_K).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    columns = tl.arange(0, BLOCK_K)[None, :]
    valid = (rows < n - top) & (columns < k - left)
    x += top * x_row + left * x_column + rows * x_row + columns * x_column
    y += top * y_row + left * y_column + rows * y_row + columns * y_column
    first = tl.load(x, mask=valid, other=0.0).to(tl.float32)
    second = tl.load(y, mask=valid, other=0.0).to(tl.float32)
    return tl.sum(tl.sum(first * second, 1), 0)


@triton.jit
def overlaps(
    a,
    g,
    omega,
    left,
    right,
    sums,
    n,
    k,
    side,
    down,
    across,
    parts,
    a_batch,
    a_row,
    a_column,
    g_batch,
    g_row,
    g_column,
    omega_batch,
    omega_row,
    omega_column,
    left_batch,
    left_row,
    left_column,
    right_batch,
    right_row,
    right_column,
    SPLIT: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Each program handles one tile of each pair; grid (batch · parts,).

    The parts of `<A, G>`, `‖Ω‖_F²` and, with SPLIT, `<L, R>` are written to `sums` of shape (batch, 3, parts). A and G
    are n×k, Ω is square, L and R are down×across.
    """
    tile = tl.program_id(0) % parts
    batch = (tl.program_id(0) // parts).to(tl.int64)
    a += batch * a_batch
    g += batch * g_batch
    omega += batch * omega_batch
    inner_product = part_of(a, g, tile, n, k, a_row, a_column, g_row, g_column, BLOCK, BLOCK_K)
    square = part_of(
        omega, omega, tile, side, side, omega_row, omega_column, omega_row, omega_column,
        BLOCK, BLOCK_K,
    )  # fmt: skip
    to = sums + batch * 3 * parts + tile
    tl.store(to, inner_product)
    tl.store(to + parts, square)
    if SPLIT:
        left += batch * left_batch
        right += batch * right_batch
        attained = part_of(
            left, right, tile, down, across, left_row, left_column, right_row, right_column,
            BLOCK, BLOCK_K,
        )  # fmt: skip
        tl.store(to + 2 * parts, attained)
