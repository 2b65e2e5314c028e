"""Products inside one program, tile by tile, of matrices in a workspace that stays in the cache.

A matrix here is float32 with contiguous rows, and zero past its edge. Its short side is at most SIDE, two tiles.
Every function ends with a barrier, so that all threads write before any reads.
"""

import triton
import triton.language as tl


@triton.jit
def tile_product(
    left,
    left_row,
    right,
    right_down,
    right_across,
    depth,
    DOWN: tl.constexpr,
    ACROSS: tl.constexpr,
    STRIP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of a product, a strip of its depth at a time; the strides of `right` may be those of its transpose."""
    inner = tl.arange(0, STRIP)
    left += tl.arange(0, DOWN)[:, None] * left_row + inner[None, :]
    right += inner[:, None] * right_down + tl.arange(0, ACROSS)[None, :] * right_across
    tile = tl.zeros((DOWN, ACROSS), tl.float32)
    for _ in range(0, depth, STRIP):
        tile = tl.dot(tl.load(left), tl.load(right), tile, input_precision=PRECISION)
        left += STRIP
        right += STRIP * right_down
    return tile


@triton.jit
def product_of_rows(
    left,
    right,
    row_stride,
    out,
    c,
    n,
    depth,
    TILE: tl.constexpr,
    PRECISION: tl.constexpr,
    SIDE: tl.constexpr,
    STRIP: tl.constexpr,
):
    """A symmetric `c A Bᵀ`: one triangle of tiles is computed and mirrored.

    It is a Gram matrix, or the product of symmetric A and B that commute. The result must not overwrite A or B.
    """
    down = tl.arange(0, TILE)[:, None]
    across = tl.arange(0, TILE)[None, :]
    for row in range(0, tl.cdiv(n, TILE)):
        for column in range(0, row + 1):
            first = left + row * TILE * row_stride
            second = right + column * TILE * row_stride
            tile = tile_product(
                first, row_stride, second, 1, row_stride, depth, TILE, TILE, STRIP, PRECISION
            )
            if row == column:
                # Addition is commutative, so the mean is symmetric bit by bit, and both stores below write the same
                # values.
                tile = 0.5 * (tile + tl.trans(tile))
            at = out + row * TILE * SIDE + column * TILE + down * SIDE + across
            tl.store(at, c * tile)
            at = out + column * TILE * SIDE + row * TILE + down * SIDE + across
            tl.store(at, c * tl.trans(tile))
    tl.debug_barrier()


@triton.jit
def add_to(t, s, a, b, n, SIDE: tl.constexpr, STRIP: tl.constexpr):
    """`T ← a I + b S + T`."""
    rows = tl.arange(0, SIDE)[:, None]
    strip = tl.arange(0, STRIP)[None, :]
    for start in range(0, SIDE, STRIP):
        at = start + rows * SIDE + strip
        one = tl.where((rows == start + strip) & (rows < n), a, 0.0)
        tl.store(t + at, one + b * tl.load(s + at) + tl.load(t + at))
    tl.debug_barrier()


@triton.jit
def apply_to(
    p,
    x,
    x_row,
    c,
    n,
    k,
    TILE: tl.constexpr,
    PRECISION: tl.constexpr,
    SIDE: tl.constexpr,
    STRIP: tl.constexpr,
):
    """`X ← c P X` for a symmetric P, in place: a few columns at a time are computed and then stored."""
    across: tl.constexpr = TILE // 2
    rows = tl.arange(0, SIDE)[:, None]
    columns = tl.arange(0, across)[None, :]
    for _ in range(0, k, across):
        tile = tile_product(p, SIDE, x, x_row, 1, n, SIDE, across, STRIP, PRECISION)
        # All threads read before any writes.
        tl.debug_barrier()
        tl.store(x + rows * x_row + columns, c * tile)
        x += across
    tl.debug_barrier()


@triton.jit
def store_rounded(
    x, x_row, out, out_row, out_column, n, k, SIDE: tl.constexpr, STRIP: tl.constexpr
):
    """Write X to `out` in its dtype, and replace X by the rounded values."""
    rows = tl.arange(0, SIDE)[:, None]
    strip = tl.arange(0, STRIP)[None, :]
    for start in range(0, k, STRIP):
        at = x + rows * x_row + strip
        y = tl.load(at).to(out.dtype.element_ty)
        valid = (rows < n) & (strip < k - start)
        tl.store(out + rows * out_row + strip * out_column, y, mask=valid)
        tl.store(at, y.to(tl.float32))
        x += STRIP
        out += STRIP * out_column
    tl.debug_barrier()
