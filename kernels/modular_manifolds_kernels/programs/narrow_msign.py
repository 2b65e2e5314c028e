"""The whole matrix sign of a matrix with one short side: the Gram matrix on the chip, X in strips."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import TINY, inverse_root, operand


@triton.jit
def steps_on_gram(r, root, coefficients, first, last, HALF: tl.constexpr, PRECISION: tl.constexpr):
    """The polynomial in R that the steps [first, last) together multiply X by, times `root`."""
    lanes = tl.arange(0, r.shape[0])
    one = tl.where(lanes[:, None] == lanes[None, :], 1.0, 0.0)
    q = operand(one * root, HALF)
    s = operand(r, HALF)
    for step in range(first, last):
        a = tl.load(coefficients + 3 * step)
        b = tl.load(coefficients + 3 * step + 1)
        c = tl.load(coefficients + 3 * step + 2)
        t = tl.dot(s, s, input_precision=PRECISION)
        t = operand(a * one + b * s.to(tl.float32) + c * t, HALF)
        q = operand(tl.dot(t, q, input_precision=PRECISION), HALF)
        if step + 1 < last:
            s = operand(tl.dot(t, s, input_precision=PRECISION), HALF)
            s = operand(tl.dot(s, t, input_precision=PRECISION), HALF)
    return q


@triton.jit
def multiply_strips(
    q,
    source,
    source_column,
    out,
    out_column,
    n,
    k,
    again,
    HALF: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Write `Q X` to `out` strip by strip; its Gram matrix where it is needed `again`, else zero."""
    rows = tl.arange(0, q.shape[0])[:, None]
    strip = tl.arange(0, BLOCK_K)[None, :]
    r = tl.zeros(q.shape, tl.float32)
    for start in range(0, k, BLOCK_K):
        columns = (start + strip).to(tl.int64)
        valid = (rows < n) & (columns < k)
        y = tl.load(source + columns * source_column, mask=valid, other=0.0)
        y = tl.dot(q, operand(y, HALF), input_precision=PRECISION).to(out.dtype.element_ty)
        tl.store(out + columns * out_column, y, mask=valid)
        if again:
            u = operand(y, HALF)
            r = tl.dot(u, tl.trans(u), r, input_precision=PRECISION)
    return r


@triton.jit
def narrow_msign(
    x,
    out,
    coefficients,
    n,
    k,
    steps,
    together,
    x_batch,
    x_row,
    x_column,
    out_batch,
    out_row,
    out_column,
    HALF: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One matrix a program, n ≤ BLOCK, any k; grid (batch,).

    `together` steps are made on one Gram matrix. Then `Q X` is written to `out`, and the next Gram
    matrix is made of what was written: it sees the rounding of Q and X, so the next steps undo it.
    """
    batch = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    strip = tl.arange(0, BLOCK_K)[None, :]
    x += batch * x_batch + rows.to(tl.int64) * x_row
    out += batch * out_batch + rows.to(tl.int64) * out_row

    found = tl.zeros((BLOCK, BLOCK_K), tl.float32)
    for start in range(0, k, BLOCK_K):
        columns = (start + strip).to(tl.int64)
        valid = (rows < n) & (columns < k)
        y = tl.load(x + columns * x_column, mask=valid, other=0.0)
        found = tl.maximum(found, tl.abs(y.to(tl.float32)))
    scale = 1.0 / tl.maximum(tl.max(tl.max(found, 1), 0), TINY)

    r = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, k, BLOCK_K):
        columns = (start + strip).to(tl.int64)
        valid = (rows < n) & (columns < k)
        y = tl.load(x + columns * x_column, mask=valid, other=0.0)
        u = operand(y.to(tl.float32) * scale, HALF)
        r = tl.dot(u, tl.trans(u), r, input_precision=PRECISION)
    length = inverse_root(tl.sum(tl.sum(r * r, 1), 0))

    last = tl.minimum(together, steps)
    q = steps_on_gram(
        r * length, scale * tl.sqrt(length), coefficients, 0, last, HALF, PRECISION
    )
    r = multiply_strips(
        q, x, x_column, out, out_column, n, k, last < steps, HALF, PRECISION, BLOCK_K
    )
    for first in range(together, steps, together):
        # What other threads of this program wrote is read below.
        tl.debug_barrier()
        last = tl.minimum(first + together, steps)
        q = steps_on_gram(r, 1.0, coefficients, first, last, HALF, PRECISION)
        r = multiply_strips(
            q, out, out_column, out, out_column, n, k, last < steps, HALF, PRECISION, BLOCK_K
        )
