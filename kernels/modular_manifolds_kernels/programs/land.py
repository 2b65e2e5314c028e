"""A stack written back to weights that lie apart, and to their master copies, in one pass over memory."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.descend import chosen


@triton.jit
def land(
    weights,
    masters,
    landed,
    start,
    moving,
    n,
    k,
    matrices,
    weight_row,
    weight_column,
    landed_batch,
    landed_row,
    landed_column,
    start_batch,
    start_row,
    start_column,
    moving_batch,
    moving_row,
    MASTERS: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A few rows of one matrix a program; grid (weights · matrices · row blocks,), weight by weight.

    A row goes to its landed place if the number at its place in `moving` is not zero, else to its start. Weights lie as in
    `descend`.
    """
    blocks = tl.cdiv(n, BLOCK)
    block = tl.program_id(0) % blocks
    matrix = tl.program_id(0) // blocks
    weight = chosen(weights, matrix // matrices, COUNT)
    top = (block * BLOCK).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    strip = tl.arange(0, BLOCK_K)[None, :]
    first = (matrix % matrices) * n.to(tl.int64) * k + top * weight_row
    at = rows * weight_row + strip * weight_column
    weight += first
    if MASTERS:
        master = chosen(masters, matrix // matrices, COUNT) + first
    place = matrix.to(tl.int64)
    landed += place * landed_batch + top * landed_row
    start += place * start_batch + top * start_row
    moving += place * moving_batch + (top + rows) * moving_row
    moves = tl.load(moving, mask=rows < n - top, other=0) != 0
    for left in range(0, k, BLOCK_K):
        valid = (rows < n - top) & (strip < k - left)
        there = landed + rows * landed_row + strip * landed_column
        here = start + rows * start_row + strip * start_column
        value = tl.load(there, mask=valid & moves, other=0.0).to(tl.float32)
        rest = tl.load(here, mask=valid & (moves == 0), other=0.0).to(tl.float32)
        value = tl.where(moves, value, rest)
        tl.store(weight + at, value.to(weight.dtype.element_ty), mask=valid)
        if MASTERS:
            tl.store(master + at, value, mask=valid)
            master += BLOCK_K * weight_column
        weight += BLOCK_K * weight_column
        landed += BLOCK_K * landed_column
        start += BLOCK_K * start_column
