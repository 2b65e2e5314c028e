"""Retraction to the Stiefel manifold in one launch, of a matrix of two tiles' height."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import step_length
from modular_manifolds_kernels.programs.stiefel_retract import moved
from modular_manifolds_kernels.programs.tiles import add_to, apply_to, give, product_of_rows


@triton.jit
def tiled_retract(
    w,
    a,
    out,
    held,
    residual,
    lengths,
    eta,
    each,
    unit,
    n,
    k,
    width,
    corrections,
    w_batch,
    w_row,
    w_column,
    a_batch,
    a_row,
    a_column,
    out_batch,
    out_row,
    out_column,
    TILE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One matrix a program, n ≤ BLOCK, any k; grid (batch,).

    `held` has room for X, BLOCK × `width`, and for one matrix of BLOCK × BLOCK, of each in the batch. The length
    of the step is given as in `stiefel_retract`.
    """
    batch = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    strip = tl.arange(0, BLOCK_K)[None, :]
    w += batch * w_batch
    a += batch * a_batch
    out += batch * out_batch
    x = held + batch * BLOCK * (width + BLOCK)
    q = x + BLOCK * width
    factor, shrink = step_length(lengths, eta, each, unit, batch)
    for start in range(0, width, BLOCK_K):
        valid = (rows < n) & (strip < k - start)
        y = moved(w, a, factor, rows, strip, w_row, w_column, a_row, a_column, valid) * shrink
        tl.store(x + start + rows * width + strip, y)
        w += BLOCK_K * w_column
        a += BLOCK_K * a_column
    tl.debug_barrier()

    for _ in range(0, corrections):
        product_of_rows(x, x, width, q, -0.5, n, k, TILE, PRECISION, BLOCK, BLOCK_K)
        add_to(q, q, 1.5, 0.0, n, BLOCK, BLOCK_K)
        apply_to(q, x, width, 1.0, n, k, TILE, PRECISION, BLOCK, BLOCK_K)

    # What is stored is measured, so its rounding counts.
    give(x, width, out, out_row, out_column, n, k, BLOCK, BLOCK_K)
    product_of_rows(x, x, width, q, 1.0, n, k, TILE, PRECISION, BLOCK, BLOCK_K)
    add_to(q, q, -1.0, 0.0, n, BLOCK, BLOCK_K)
    found = tl.zeros((BLOCK, BLOCK_K), tl.float32)
    for start in range(0, BLOCK, BLOCK_K):
        found = tl.maximum(found, tl.abs(tl.load(q + start + rows * BLOCK + strip)))
    tl.store(residual + batch, tl.max(tl.max(found, 1), 0))
