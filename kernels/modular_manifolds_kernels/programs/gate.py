"""Whether a step can be taken, for all weights, and what is counted of it."""

import triton
import triton.language as tl


@triton.jit
def gate(largest, counts, ok, reached, bound, weights, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr):
    """One program; as many weights at a time as a tile has entries.

    `largest` holds `max |G|` of each weight. `counts` has a number for each weight, one that is left alone, and one for
    steps that are left out: it grows by one if a number is not below `bound`.
    """
    width: tl.constexpr = BLOCK * BLOCK_K
    lanes = tl.arange(0, width)
    bad = tl.zeros((width,), tl.float32)
    for start in range(0, weights, width):
        inside = lanes < weights - start
        value = tl.load(largest + start + lanes, mask=inside, other=0.0)
        # NaN is below nothing.
        one = tl.where(value < bound, 0.0, 1.0)
        count = tl.load(counts + start + lanes, mask=inside, other=0.0)
        tl.store(counts + start + lanes, count + one, mask=inside)
        bad = tl.maximum(bad, one)
    left_out = tl.max(bad, 0)
    tl.store(ok, (1.0 - left_out).to(tl.int8))
    last = counts + weights + 1
    tl.store(last, tl.load(last) + left_out)
    for start in range(0, weights, width):
        inside = lanes < weights - start
        value = tl.load(largest + start + lanes, mask=inside, other=0.0)
        moves = (value > 0.0) & (lanes * 0.0 + left_out == 0.0)
        tl.store(reached + start + lanes, moves.to(tl.int8), mask=inside)
