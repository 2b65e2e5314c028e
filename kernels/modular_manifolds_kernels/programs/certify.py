"""A bound on the gap of a direction from the parts of its inner products, and zeros for what is no direction."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import sum_of_parts


@triton.jit
def certify(
    a,
    sums,
    scales,
    info,
    gap,
    share,
    squares,
    each,
    kept,
    whole,
    rounding,
    least,
    n,
    k,
    parts,
    a_batch,
    a_row,
    a_column,
    SPLIT: tl.constexpr,
    FACTORED: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One tile of A a program; grid (batch · row tiles · column tiles,). The first tile of a matrix writes its gap.

    A is written to only if it is no direction: `s ≤ least`, or with FACTORED a factorisation that failed.
    """
    tiles = tl.cdiv(k, BLOCK_K)
    count = tl.cdiv(n, BLOCK) * tiles
    tile = tl.program_id(0) % count
    batch = (tl.program_id(0) // count).to(tl.int64)
    scale = tl.load(scales + batch)
    nothing = tl.where(scale <= least, 1.0, 0.0)
    failed = 0.0
    if FACTORED:
        failed = tl.where(tl.load(info + batch) != 0, 1.0, 0.0)
    # Zero, and NaN if the scale is.
    zero = scale * 0.0
    if tile == 0:
        mine = sums + batch * 3 * parts
        along = sum_of_parts(mine, parts)
        square = sum_of_parts(mine + parts, parts)
        attained = sum_of_parts(mine + 2 * parts, parts) if SPLIT else -along
        missing = share * (squares - square)
        # Comparisons keep NaN, a minimum need not.
        missing = tl.where(missing < 0.0, 0.0, missing)
        missing = tl.where(missing > each, each, missing)
        nuclear = missing * scale + attained
        found = along * kept / nuclear + whole + rounding / tl.where(scale == 0.0, 1.0, scale)
        found = tl.where(found < 0.0, 0.0, found)
        found = tl.where(found > 1.0, 1.0, found)
        if FACTORED:
            found = tl.where(failed != 0.0, zero + 1.0, found)
        tl.store(gap + batch, tl.where(nothing != 0.0, 0.0, found))
    top = ((tile // tiles) * BLOCK).to(tl.int64)
    left = ((tile % tiles) * BLOCK_K).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    columns = tl.arange(0, BLOCK_K)[None, :]
    valid = (rows < n - top) & (columns < k - left)
    a += batch * a_batch + top * a_row + left * a_column
    wrong = rows * 0.0 + nothing + failed != 0.0
    value = tl.zeros((BLOCK, BLOCK_K), tl.float32) + tl.where(nothing != 0.0, 0.0, zero)
    tl.store(a + rows * a_row + columns * a_column, value, mask=valid & wrong)
