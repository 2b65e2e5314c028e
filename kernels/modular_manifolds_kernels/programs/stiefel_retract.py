"""Retraction to the Stiefel manifold with its correction, and what is left of it, in one launch."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import operand


@triton.jit
def stiefel_retract(
    w,
    a,
    out,
    residual,
    eta,
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
    """One matrix a program, n ≤ BLOCK, any k; grid (batch,)."""
    batch = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    strip = tl.arange(0, BLOCK_K)[None, :]
    across = tl.arange(0, BLOCK)[None, :]
    one = tl.where((rows == across) & (rows < n), 1.0, 0.0)
    w += batch * w_batch + rows.to(tl.int64) * w_row
    a += batch * a_batch + rows.to(tl.int64) * a_row
    out += batch * out_batch + rows.to(tl.int64) * out_row
    shrink = 1.0 / tl.sqrt(1.0 + eta * eta)

    r = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, k, BLOCK_K):
        columns = (start + strip).to(tl.int64)
        valid = (rows < n) & (columns < k)
        x = tl.load(w + columns * w_column, mask=valid, other=0.0).to(tl.float32)
        x += eta * tl.load(a + columns * a_column, mask=valid, other=0.0).to(tl.float32)
        x *= shrink
        r = tl.dot(x, tl.trans(x), r, input_precision=PRECISION)

    q = one
    for _ in range(0, corrections):
        t = 1.5 * one - 0.5 * r
        q = tl.dot(t, q, input_precision=PRECISION)
        r = tl.dot(tl.dot(t, r, input_precision=PRECISION), t, input_precision=PRECISION)

    r = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, k, BLOCK_K):
        columns = (start + strip).to(tl.int64)
        valid = (rows < n) & (columns < k)
        x = tl.load(w + columns * w_column, mask=valid, other=0.0).to(tl.float32)
        x += eta * tl.load(a + columns * a_column, mask=valid, other=0.0).to(tl.float32)
        y = tl.dot(q, x * shrink, input_precision=PRECISION).to(out.dtype.element_ty)
        tl.store(out + columns * out_column, y, mask=valid)
        # What is stored is measured, so its rounding counts.
        z = operand(y, False)
        r = tl.dot(z, tl.trans(z), r, input_precision=PRECISION)
    tl.store(residual + batch, tl.max(tl.max(tl.abs(r - one), 1), 0))
