"""Writes a stack back to a list of weights and to their master copies, in one pass over memory."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.descend import select_pointer


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
    """Each program handles a block of rows of one matrix; grid (weights · matrices · row blocks,), weight by weight.

    A row becomes that of `landed` if its number in `moving` is not zero, else that of `start`. Weights are laid out as in
    `descend`.
    """
    blocks = tl.cdiv(n, BLOCK)
    block = tl.program_id(0) % blocks
    matrix = tl.program_id(0) // blocks
    weight = select_pointer(weights, matrix // matrices, COUNT)
    top = (block * BLOCK).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    strip = tl.arange(0, BLOCK_K)[None, :]
    first = (matrix % matrices) * n.to(tl.int64) * k + top * weight_row
    at = rows * weight_row + strip * weight_column
    weight += first
    if MASTERS:
        master = select_pointer(masters, matrix // matrices, COUNT) + first
    place = matrix.to(tl.int64)
    landed += place * landed_batch + top * landed_row
    start += place * start_batch + top * start_row
    moving += place * moving_batch + (top + rows) * moving_row
    moves = tl.load(moving, mask=rows < n - top, other=0) != 0
    for left in range(0, k, BLOCK_K):
        valid = (rows < n - top) & (strip < k - left)
        landed_at = landed + rows * landed_row + strip * landed_column
        start_at = start + rows * start_row + strip * start_column
        value = tl.load(landed_at, mask=valid & moves, other=0.0).to(tl.float32)
        unmoved = tl.load(start_at, mask=valid & (moves == 0), other=0.0).to(tl.float32)
        value = tl.where(moves, value, unmoved)
        tl.store(weight + at, value.to(weight.dtype.element_ty), mask=valid)
        if MASTERS:
            tl.store(master + at, value, mask=valid)
            master += BLOCK_K * weight_column
        weight += BLOCK_K * weight_column
        landed += BLOCK_K * landed_column
        start += BLOCK_K * start_column
