"""Momentum of weights that lie apart, and what is descended in one stack, in one pass over memory."""

import triton
import triton.language as tl


@triton.jit
def chosen(tensors, index, COUNT: tl.constexpr):
    """The pointer at a place that is known at run time only."""
    found = tensors[0]
    for place in tl.static_range(1, COUNT):
        found = tl.where(index == place, tensors[place], found)
    return found


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
    """A few rows of one matrix a program; grid (weights · matrices · row blocks,), weight by weight.

    Every weight holds `matrices` of them, one after another, with these strides; `out` is contiguous. Gradients count
    as zero and momenta are not written to if the number at `ok` is zero. `largest` receives the largest entry of every
    row of the gradients.
    """
    blocks = tl.cdiv(n, BLOCK)
    block = tl.program_id(0) % blocks
    matrix = tl.program_id(0) // blocks
    gradient = chosen(gradients, matrix // matrices, COUNT)
    top = (block * BLOCK).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    strip = tl.arange(0, BLOCK_K)[None, :]
    step = rows * 0 + tl.load(ok).to(tl.int32) != 0
    size = n.to(tl.int64) * k
    first = (matrix % matrices) * size + top * weight_row
    at = rows * weight_row + strip * weight_column
    gradient += first
    if MOMENTUM:
        momentum = chosen(momenta, matrix // matrices, COUNT) + first
    out += matrix * size + top * k + rows * k + strip
    found = tl.zeros((BLOCK, BLOCK_K), tl.float32)
    for start in range(0, k, BLOCK_K):
        valid = (rows < n - top) & (strip < k - start)
        value = tl.load(gradient + at, mask=valid & step, other=0.0).to(tl.float32)
        found = tl.maximum(found, tl.abs(value))
        if MOMENTUM:
            kept = tl.load(momentum + at, mask=valid, other=0.0)
            kept = tl.where(step, mu * kept + (1.0 - mu) * value, kept)
            tl.store(momentum + at, kept, mask=valid & step)
            momentum += BLOCK_K * weight_column
            value = mu * kept + (1.0 - mu) * value if NESTEROV else kept
        tl.store(out + start, value, mask=valid)
        gradient += BLOCK_K * weight_column
    place = matrix.to(tl.int64) * n + top + tl.arange(0, BLOCK)
    tl.store(largest + place, tl.max(found, 1), mask=tl.arange(0, BLOCK) < n - top)
