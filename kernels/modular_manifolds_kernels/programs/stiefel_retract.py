"""Retraction to the Stiefel manifold with corrections, and its residual, in one launch."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import operand, step_length


@triton.jit
def step_strip(w, a, factor, rows, columns, w_row, w_column, a_row, a_column, valid):
    """`W + fA` for one strip, f the factor."""
    w += rows * w_row + columns * w_column
    a += rows * a_row + columns * a_column
    x = tl.load(w, mask=valid, other=0.0).to(tl.float32)
    return x + factor * tl.load(a, mask=valid, other=0.0).to(tl.float32)


@triton.jit
def stiefel_retract(
    w,
    a,
    out,
    residual,
    lengths,
    eta,
    each,
    unit,
    n,
    k,
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
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Each program handles one matrix with n ≤ BLOCK and any k; grid (batch,).

    The length of the step is `eta` times the matrix's number in `lengths`, whose stride `each` is 0 if all matrices
    share one number. A is multiplied by the length if `unit` is 1, and is the whole step if `unit` is 0.
    """
    batch = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    strip = tl.arange(0, BLOCK_K)[None, :]
    across = tl.arange(0, BLOCK)[None, :]
    one = tl.where((rows == across) & (rows < n), 1.0, 0.0)
    w += batch * w_batch
    a += batch * a_batch
    out += batch * out_batch
    factor, shrink = step_length(lengths, eta, each, unit, batch)

    to = out
    r = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, k, BLOCK_K):
        valid = (rows < n) & (strip < k - start)
        x = step_strip(w, a, factor, rows, strip, w_row, w_column, a_row, a_column, valid) * shrink
        y = x.to(out.dtype.element_ty)
        tl.store(to + rows * out_row + strip * out_column, y, mask=valid)
        # The residual is that of the stored, rounded entries.
        z = operand(y, False)
        r = tl.dot(z, tl.trans(z), r, input_precision=PRECISION)
        w += BLOCK_K * w_column
        a += BLOCK_K * a_column
        to += BLOCK_K * out_column

    for _ in range(0, corrections):
        q = 1.5 * one - 0.5 * r
        # All threads write before any reads.
        tl.debug_barrier()
        to = out
        r = tl.zeros((BLOCK, BLOCK), tl.float32)
        for start in range(0, k, BLOCK_K):
            valid = (rows < n) & (strip < k - start)
            at = to + rows * out_row + strip * out_column
            x = operand(tl.load(at, mask=valid, other=0.0), False)
            y = tl.dot(q, x, input_precision=PRECISION).to(out.dtype.element_ty)
            # In place: all threads read before any writes.
            tl.debug_barrier()
            tl.store(at, y, mask=valid)
            z = operand(y, False)
            r = tl.dot(z, tl.trans(z), r, input_precision=PRECISION)
            to += BLOCK_K * out_column
    tl.store(residual + batch, tl.max(tl.max(tl.abs(r - one), 1), 0))
