"""Scalars that one launch computes for the next, and the rounding of operands before a matrix product."""

import triton
import triton.language as tl

MIN_NORMAL = tl.constexpr(1.1754943508222875e-38)
"""The smallest normal number of float32."""
CHUNK_ENTRIES = tl.constexpr(1024)
"""The number of entries that a reduction loads at a time."""


@triton.jit
def operand(tile, HALF: tl.constexpr):
    """A tile as an operand of `tl.dot`, in bfloat16 or float32. Tiles are rounded only here."""
    return tile.to(tl.float32).to(tl.bfloat16) if HALF else tile.to(tl.float32)


@triton.jit
def inverse_largest(largest, count):
    """`1 / max |x|` of one matrix from the maxima of its parts; finite for zero."""
    lanes = tl.arange(0, CHUNK_ENTRIES)
    maxima = tl.zeros((CHUNK_ENTRIES,), tl.float32)
    for start in range(0, count, CHUNK_ENTRIES):
        inside = start + lanes < count
        maxima = tl.maximum(maxima, tl.load(largest + start + lanes, mask=inside, other=0.0))
    return 1.0 / tl.maximum(tl.max(maxima, 0), MIN_NORMAL)


@triton.jit
def sum_of_parts(squares, count):
    """`‖R‖_F²` of one matrix from the sums of squares of its parts, in a fixed order."""
    lanes = tl.arange(0, CHUNK_ENTRIES)
    total = tl.zeros((CHUNK_ENTRIES,), tl.float32)
    for start in range(0, count, CHUNK_ENTRIES):
        inside = start + lanes < count
        total += tl.load(squares + start + lanes, mask=inside, other=0.0)
    return tl.sum(total, 0)


@triton.jit
def inverse_length(squares, count):
    """`1 / ‖R‖_F` from the sums of squares of its parts; one for zero."""
    return inverse_root(sum_of_parts(squares, count))


@triton.jit
def scale_of(largest, total):
    """`‖X Xᵀ‖_F^{1/2}` from the largest entry of X and `‖R‖_F²`, R the Gram matrix of X divided by that entry."""
    return largest * tl.sqrt(tl.sqrt(total))


@triton.jit
def inverse_root(total):
    """`total^{-1/2}`; one for zero, so that a zero matrix stays zero."""
    return 1.0 / tl.sqrt(tl.where(total == 0.0, 1.0, total))


@triton.jit
def step_length(lengths, eta, each, unit, batch):
    """The factor of a step A (η or 1), and `1/√(1 + η²)`; η is `eta` times the matrix's number in `lengths`."""
    length = eta * tl.load(lengths + batch * each)
    return tl.where(unit != 0, length, 1.0), 1.0 / tl.sqrt(1.0 + length * length)


@triton.jit
def triangle(index):
    """Row and column, column ≤ row, of the tile with this index in the lower triangle."""
    row = ((tl.sqrt(8.0 * index + 1.0) - 1.0) * 0.5).to(tl.int32)
    # The square root is rounded, so the row is corrected by one if necessary.
    row = tl.where(row * (row + 1) // 2 > index, row - 1, row)
    row = tl.where((row + 1) * (row + 2) // 2 <= index, row + 1, row)
    return row, index - row * (row + 1) // 2


@triton.jit
def store_mirrored(r, tile, row, column, n, r_row, BLOCK: tl.constexpr):
    """Write a tile of the lower triangle and its mirror image, so that R is symmetric bit by bit."""
    down = tl.arange(0, BLOCK)[:, None]
    across = tl.arange(0, BLOCK)[None, :]
    top = row * BLOCK
    left = column * BLOCK
    value = tile.to(r.dtype.element_ty)
    below = (top + down >= left + across) & (top + down < n)
    tl.store(r + top.to(tl.int64) * r_row + left + down * r_row + across, value, mask=below)
    above = (top + across > left + down) & (top + across < n)
    mirrored = r + left.to(tl.int64) * r_row + top + down * r_row + across
    tl.store(mirrored, tl.trans(value), mask=above)
