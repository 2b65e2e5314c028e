"""A bound on the gap of a direction from partial inner products; invalid directions become zero."""

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
    """Each program handles one tile of A; grid (batch · row tiles · column tiles,). The first one writes the gap.

    A is written to only if `s ≤ least` (no tangent part), or with FACTORED if the factorisation failed.
    """
    tiles = tl.cdiv(k, BLOCK_K)
    count = tl.cdiv(n, BLOCK) * tiles
    tile = tl.program_id(0) % count
    batch = (tl.program_id(0) // count).to(tl.int64)
    scale = tl.load(scales + batch)
    no_direction = tl.where(scale <= least, 1.0, 0.0)
    failed = 0.0
    if FACTORED:
        failed = tl.where(tl.load(info + batch) != 0, 1.0, 0.0)
    # Zero, or NaN if the scale is NaN.
    zero = scale * 0.0
    if tile == 0:
        mine = sums + batch * 3 * parts
        inner_product = sum_of_parts(mine, parts)
        square = sum_of_parts(mine + parts, parts)
        attained = sum_of_parts(mine + 2 * parts, parts) if SPLIT else -inner_product
        lost = share * (squares - square)
        # tl.where keeps NaN; tl.minimum need not.
        lost = tl.where(lost < 0.0, 0.0, lost)
        lost = tl.where(lost > each, each, lost)
        nuclear = lost * scale + attained
        bound = (
            inner_product * kept / nuclear + whole + rounding / tl.where(scale == 0.0, 1.0, scale)
        )
        bound = tl.where(bound < 0.0, 0.0, bound)
        bound = tl.where(bound > 1.0, 1.0, bound)
        if FACTORED:
            bound = tl.where(failed != 0.0, zero + 1.0, bound)
        tl.store(gap + batch, tl.where(no_direction != 0.0, 0.0, bound))
    top = ((tile // tiles) * BLOCK).to(tl.int64)
    left = ((tile % tiles) * BLOCK_K).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    columns = tl.arange(0, BLOCK_K)[None, :]
    valid = (rows < n - top) & (columns < k - left)
    a += batch * a_batch + top * a_row + left * a_column
    wrong = rows * 0.0 + no_direction + failed != 0.0
    value = tl.zeros((BLOCK, BLOCK_K), tl.float32) + tl.where(no_direction != 0.0, 0.0, zero)
    tl.store(a + rows * a_row + columns * a_column, value, mask=valid & wrong)
