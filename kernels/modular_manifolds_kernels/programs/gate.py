"""The decision whether a step is taken, for all weights, and the counts of skipped steps."""

import triton
import triton.language as tl


@triton.jit
def gate(largest, counts, ok, reached, bound, weights, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr):
    """A single program, which handles BLOCK · BLOCK_K weights at a time.

    `largest` holds `max |G|` of each weight. `counts` has a number for each weight, one that does not change, and one for
    skipped steps. A number grows by one if an entry is not below `bound`.
    """
    width: tl.constexpr = BLOCK * BLOCK_K
    lanes = tl.arange(0, width)
    bad = tl.zeros((width,), tl.float32)
    for start in range(0, weights, width):
        inside = lanes < weights - start
        value = tl.load(largest + start + lanes, mask=inside, other=0.0)
        # NaN is not below the bound.
        is_bad = tl.where(value < bound, 0.0, 1.0)
        count = tl.load(counts + start + lanes, mask=inside, other=0.0)
        tl.store(counts + start + lanes, count + is_bad, mask=inside)
        bad = tl.maximum(bad, is_bad)
    skipped = tl.max(bad, 0)
    tl.store(ok, (1.0 - skipped).to(tl.int8))
    last = counts + weights + 1
    tl.store(last, tl.load(last) + skipped)
    for start in range(0, weights, width):
        inside = lanes < weights - start
        value = tl.load(largest + start + lanes, mask=inside, other=0.0)
        moves = (value > 0.0) & (lanes * 0.0 + skipped == 0.0)
        tl.store(reached + start + lanes, moves.to(tl.int8), mask=inside)
