"""The matrix sign of a matrix with a short side in one program: the Gram matrix on the chip, X in strips."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import MIN_NORMAL, inverse_root, operand, scale_of


@triton.jit
def one_step(s, coefficients, step, root, HALF: tl.constexpr, PRECISION: tl.constexpr):
    """`root · (a I + b S + c S²)` with the coefficients of this step."""
    lanes = tl.arange(0, s.shape[0])
    a = tl.load(coefficients + 3 * step)
    b = tl.load(coefficients + 3 * step + 1)
    c = tl.load(coefficients + 3 * step + 2)
    t = c * tl.dot(s, s, input_precision=PRECISION) + b * s.to(tl.float32)
    t += tl.where(lanes[:, None] == lanes[None, :], a, 0.0)
    return operand(root * t, HALF)


@triton.jit
def steps_on_gram(
    r, held, root, coefficients, first, last, HALF: tl.constexpr, PRECISION: tl.constexpr
):
    """`root` times the polynomial in R by which the steps [first, last) multiply X.

    Between the steps it is stored in `held`, which stays in the cache, because registers have no room for it. It is
    used in float32 only; in bfloat16 every step has its own Gram matrix.
    """
    lanes = tl.arange(0, r.shape[0])
    at = held + lanes[:, None] * r.shape[0] + lanes[None, :]
    tl.store(at, operand(tl.where(lanes[:, None] == lanes[None, :], root, 0.0), HALF))
    s = operand(r, HALF)
    for step in range(first, last):
        t = one_step(s, coefficients, step, 1.0, HALF, PRECISION)
        # All threads write before any reads.
        tl.debug_barrier()
        q = tl.dot(tl.load(at), t, input_precision=PRECISION)
        # All threads read before any writes.
        tl.debug_barrier()
        tl.store(at, operand(q, HALF))
        # Computed after the last step too, because a branch here would spill registers.
        s = operand(tl.dot(s, t, input_precision=PRECISION), HALF)
        s = operand(tl.dot(s, t, input_precision=PRECISION), HALF)
    tl.debug_barrier()
    return tl.load(at)


@triton.jit
def multiply_strips(
    q,
    source,
    source_row,
    source_column,
    out,
    out_row,
    out_column,
    n,
    k,
    scale,
    again,
    HALF: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Write `Q X` of the scaled X to `out` strip by strip; return its Gram matrix if `again` is true, else zero."""
    rows = tl.arange(0, q.shape[0])[:, None]
    strip = tl.arange(0, BLOCK_K)[None, :]
    r = tl.zeros(q.shape, tl.float32)
    for start in range(0, k, BLOCK_K):
        valid = (rows < n) & (strip < k - start)
        y = tl.load(source + rows * source_row + strip * source_column, mask=valid, other=0.0)
        y = operand(y.to(tl.float32) * scale, HALF)
        y = tl.dot(q, y, input_precision=PRECISION).to(out.dtype.element_ty)
        # For products in place: all threads read before any writes.
        tl.debug_barrier()
        tl.store(out + rows * out_row + strip * out_column, y, mask=valid)
        if again:
            u = operand(y, HALF)
            r = tl.dot(u, tl.trans(u), r, input_precision=PRECISION)
        source += BLOCK_K * source_column
        out += BLOCK_K * out_column
    return r


@triton.jit
def narrow_msign(
    x,
    out,
    held,
    scales,
    coefficients,
    n,
    k,
    steps,
    x_batch,
    x_row,
    x_column,
    out_batch,
    out_row,
    out_column,
    STEPS_PER_GRAM: tl.constexpr,
    HALF: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Each program handles one matrix with n ≤ BLOCK and any k; grid (batch,).

    STEPS_PER_GRAM steps are made on one Gram matrix. Then `Q X` is written to `out`, and the next Gram matrix is
    computed from the written, rounded matrix, so the next steps correct the rounding of Q and X. The scale of the
    matrix is written to `scales`.
    """
    batch = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    strip = tl.arange(0, BLOCK_K)[None, :]
    x += batch * x_batch
    out += batch * out_batch
    held += batch * BLOCK * BLOCK

    at = x
    maxima = tl.zeros((BLOCK, BLOCK_K), tl.float32)
    for start in range(0, k, BLOCK_K):
        valid = (rows < n) & (strip < k - start)
        y = tl.load(at + rows * x_row + strip * x_column, mask=valid, other=0.0)
        maxima = tl.maximum(maxima, tl.abs(y.to(tl.float32)))
        at += BLOCK_K * x_column
    largest = tl.maximum(tl.max(tl.max(maxima, 1), 0), MIN_NORMAL)
    scale = 1.0 / largest

    at = x
    r = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, k, BLOCK_K):
        valid = (rows < n) & (strip < k - start)
        y = tl.load(at + rows * x_row + strip * x_column, mask=valid, other=0.0)
        u = operand(y.to(tl.float32) * scale, HALF)
        r = tl.dot(u, tl.trans(u), r, input_precision=PRECISION)
        at += BLOCK_K * x_column
    total = tl.sum(tl.sum(r * r, 1), 0)
    tl.store(scales + batch, scale_of(largest, total))
    length = inverse_root(total)

    last = tl.minimum(STEPS_PER_GRAM, steps)
    root = tl.sqrt(length)
    if STEPS_PER_GRAM == 1:
        q = one_step(operand(r * length, HALF), coefficients, 0, root, HALF, PRECISION)
    else:
        q = steps_on_gram(r * length, held, root, coefficients, 0, last, HALF, PRECISION)
    r = multiply_strips(
        q, x, x_row, x_column, out, out_row, out_column,
        n, k, scale, last < steps, HALF, PRECISION, BLOCK_K,
    )  # fmt: skip
    for first in range(STEPS_PER_GRAM, steps, STEPS_PER_GRAM):
        last = tl.minimum(first + STEPS_PER_GRAM, steps)
        if STEPS_PER_GRAM == 1:
            q = one_step(operand(r, HALF), coefficients, first, 1.0, HALF, PRECISION)
        else:
            q = steps_on_gram(r, held, 1.0, coefficients, first, last, HALF, PRECISION)
        # All threads write `out` before any reads it.
        tl.debug_barrier()
        r = multiply_strips(
            q, out, out_row, out_column, out, out_row, out_column,
            n, k, 1.0, last < steps, HALF, PRECISION, BLOCK_K,
        )  # fmt: skip
