"""The momenta of a list of weights, and the directions in one stack, in one pass over memory."""

import triton
import triton.language as tl


@triton.jit
def select_pointer(tensors, index, COUNT: tl.constexpr):
    """The pointer with an index that is known at run time only."""
    pointer = tensors[0]
    for i in tl.static_range(1, COUNT):
        pointer = tl.where(index == i, tensors[i], pointer)
    return pointer


@triton.jit
def descend(
    gradients,
    momenta,
    ok,
    out,
    largest,
    mu,
    n,
    k,
    matrices,
    weight_row,
    weight_column,
    MOMENTUM: tl.constexpr,
    NESTEROV: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Each program handles a block of rows of one matrix; grid (weights · matrices · row blocks,), weight by weight.

    Every weight holds `matrices` matrices one after another, with the given strides; `out` is contiguous. If `ok` is
    zero, gradients count as zero and momenta are not written. The largest entry of every row of the gradients is
    written to `largest`.
    """
    blocks = tl.cdiv(n, BLOCK)
    block = tl.program_id(0) % blocks
    matrix = tl.program_id(0) // blocks
    gradient = select_pointer(gradients, matrix // matrices, COUNT)
    top = (block * BLOCK).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    strip = tl.arange(0, BLOCK_K)[None, :]
    step = rows * 0 + tl.load(ok).to(tl.int32) != 0
    size = n.to(tl.int64) * k
    first = (matrix % matrices) * size + top * weight_row
    at = rows * weight_row + strip * weight_column
    gradient += first
    if MOMENTUM:
        momentum = select_pointer(momenta, matrix // matrices, COUNT) + first
    out += matrix * size + top * k + rows * k + strip
    largest_entries = tl.zeros((BLOCK, BLOCK_K), tl.float32)
    for start in range(0, k, BLOCK_K):
        valid = (rows < n - top) & (strip < k - start)
        value = tl.load(gradient + at, mask=valid & step, other=0.0).to(tl.float32)
        largest_entries = tl.maximum(largest_entries, tl.abs(value))
        if MOMENTUM:
            new_momentum = tl.load(momentum + at, mask=valid, other=0.0)
            new_momentum = tl.where(step, mu * new_momentum + (1.0 - mu) * value, new_momentum)
            tl.store(momentum + at, new_momentum, mask=valid & step)
            momentum += BLOCK_K * weight_column
            value = mu * new_momentum + (1.0 - mu) * value if NESTEROV else new_momentum
        tl.store(out + start, value, mask=valid)
        gradient += BLOCK_K * weight_column
    place = matrix.to(tl.int64) * n + top + tl.arange(0, BLOCK)
    tl.store(largest + place, tl.max(largest_entries, 1), mask=tl.arange(0, BLOCK) < n - top)
