"""The matrix sign of a matrix of two tiles' height in one program, whose workspace stays in the cache."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import MIN_NORMAL, inverse_root, scale_of
from modular_manifolds_kernels.programs.tiles import (
    add_to,
    apply_to,
    product_of_rows,
    store_rounded,
)


@triton.jit
def tiled_msign(
    x,
    out,
    held,
    scales,
    coefficients,
    n,
    k,
    width,
    steps,
    steps_per_gram,
    x_batch,
    x_row,
    x_column,
    out_batch,
    out_row,
    out_column,
    TILE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Each program handles one matrix with n ≤ BLOCK and any k; grid (batch,).

    The workspace `held` has for each matrix X, BLOCK × `width`, and four matrices of BLOCK × BLOCK. `steps_per_gram`
    steps are made on one Gram matrix S, then `X ← Q X`, and so on. The scale of the matrix is written to `scales`.
    """
    batch = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    strip = tl.arange(0, BLOCK_K)[None, :]
    square = tl.arange(0, BLOCK)[:, None] * BLOCK + strip
    x += batch * x_batch
    out += batch * out_batch
    y = held + batch * BLOCK * (width + 4 * BLOCK)
    s = y + BLOCK * width
    q = s + BLOCK * BLOCK
    u = q + BLOCK * BLOCK
    again = u + BLOCK * BLOCK

    at = x
    maxima = tl.zeros((BLOCK, BLOCK_K), tl.float32)
    for start in range(0, k, BLOCK_K):
        valid = (rows < n) & (strip < k - start)
        entries = tl.load(at + rows * x_row + strip * x_column, mask=valid, other=0.0)
        maxima = tl.maximum(maxima, tl.abs(entries.to(tl.float32)))
        at += BLOCK_K * x_column
    largest = tl.maximum(tl.max(tl.max(maxima, 1), 0), MIN_NORMAL)
    scale = 1.0 / largest
    at = x
    for start in range(0, width, BLOCK_K):
        valid = (rows < n) & (strip < k - start)
        entries = tl.load(at + rows * x_row + strip * x_column, mask=valid, other=0.0)
        tl.store(y + start + rows * width + strip, entries.to(tl.float32) * scale)
        at += BLOCK_K * x_column
    tl.debug_barrier()

    for first in range(0, steps, steps_per_gram):
        product_of_rows(y, y, width, s, 1.0, n, k, TILE, PRECISION, BLOCK, BLOCK_K)
        length = 1.0
        if first == 0:
            squares = tl.zeros((BLOCK, BLOCK_K), tl.float32)
            for start in range(0, BLOCK, BLOCK_K):
                entries = tl.load(s + square + start)
                squares += entries * entries
            total = tl.sum(tl.sum(squares, 1), 0)
            tl.store(scales + batch, scale_of(largest, total))
            length = inverse_root(total)
        root = tl.sqrt(length)
        t = q
        for product in range(0, 4 * (tl.minimum(first + steps_per_gram, steps) - first) - 3):
            # T = aI + bS + cS² and Q = T; then for each further step U = S T, S = U T, a new T, and Q ← Q T.
            # One call in a loop computes all products: with several calls the compiler runs out of registers.
            kind = product % 4
            new = (kind == 3) | (product == 0)
            step = 3 * (first + (product + 1) // 4)
            left = s
            right = t
            to = u
            c = 1.0
            if kind == 0:
                left = q
            if kind == 1:
                c = length
            if kind == 2:
                left = u
                to = s
                t = again
                length = 1.0
            if new:
                c = tl.load(coefficients + step + 2) * length * length
                left = s
                right = s
                to = t
            product_of_rows(left, right, BLOCK, to, c, n, n, TILE, PRECISION, BLOCK, BLOCK_K)
            if new:
                a = tl.load(coefficients + step)
                b = tl.load(coefficients + step + 1) * length
                add_to(t, s, a, b, n, BLOCK, BLOCK_K)
            elif kind == 0:
                q, u = u, q
        apply_to(q, y, width, root, n, k, TILE, PRECISION, BLOCK, BLOCK_K)
    store_rounded(y, width, out, out_row, out_column, n, k, BLOCK, BLOCK_K)
