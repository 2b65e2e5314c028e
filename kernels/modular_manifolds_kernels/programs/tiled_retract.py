"""Retraction to the Stiefel manifold in one launch, for matrices of two tiles' height."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import step_length
from modular_manifolds_kernels.programs.stiefel_retract import step_strip
from modular_manifolds_kernels.programs.tiles import (
    add_to,
    apply_to,
    product_of_rows,
    store_rounded,
)


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
    """Each program handles one matrix with n ≤ BLOCK and any k; grid (batch,).

    The workspace `held` has for each matrix X, BLOCK × `width`, and one matrix of BLOCK × BLOCK. The length of the
    step is passed as in `stiefel_retract`.
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
        y = step_strip(w, a, factor, rows, strip, w_row, w_column, a_row, a_column, valid) * shrink
        tl.store(x + start + rows * width + strip, y)
        w += BLOCK_K * w_column
        a += BLOCK_K * a_column
    tl.debug_barrier()

    for _ in range(0, corrections):
        product_of_rows(x, x, width, q, -0.5, n, k, TILE, PRECISION, BLOCK, BLOCK_K)
        add_to(q, q, 1.5, 0.0, n, BLOCK, BLOCK_K)
        apply_to(q, x, width, 1.0, n, k, TILE, PRECISION, BLOCK, BLOCK_K)

    # The residual is that of the stored, rounded entries.
    store_rounded(x, width, out, out_row, out_column, n, k, BLOCK, BLOCK_K)
    product_of_rows(x, x, width, q, 1.0, n, k, TILE, PRECISION, BLOCK, BLOCK_K)
    add_to(q, q, -1.0, 0.0, n, BLOCK, BLOCK_K)
    maxima = tl.zeros((BLOCK, BLOCK_K), tl.float32)
    for start in range(0, BLOCK, BLOCK_K):
        maxima = tl.maximum(maxima, tl.abs(tl.load(q + start + rows * BLOCK + strip)))
    tl.store(residual + batch, tl.max(tl.max(maxima, 1), 0))
