"""The matrix sign of a matrix that fits on the chip: it is loaded once and stored once."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import MIN_NORMAL, inverse_root, operand, scale_of


@triton.jit
def small_msign(
    x,
    out,
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
    HALF: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Each program handles one matrix with n ≤ BLOCK and k ≤ BLOCK_K, padded with zeros; grid (batch,).

    The scale of the matrix is written to `scales`.
    """
    batch = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    columns = tl.arange(0, BLOCK_K)[None, :]
    valid = (rows < n) & (columns < k)
    at = x + batch * x_batch + rows * x_row + columns * x_column
    y = tl.load(at, mask=valid, other=0.0).to(tl.float32)
    largest = tl.maximum(tl.max(tl.max(tl.abs(y), 1), 0), MIN_NORMAL)
    y *= 1.0 / largest
    u = operand(y, HALF)
    r = tl.dot(u, tl.trans(u), input_precision=PRECISION)
    total = tl.sum(tl.sum(r * r, 1), 0)
    tl.store(scales + batch, scale_of(largest, total))
    y *= tl.sqrt(inverse_root(total))
    for step in range(0, steps):
        a = tl.load(coefficients + 3 * step)
        b = tl.load(coefficients + 3 * step + 1)
        c = tl.load(coefficients + 3 * step + 2)
        u = operand(y, HALF)
        r = tl.dot(u, tl.trans(u), input_precision=PRECISION)
        s = operand(r, HALF)
        p = b * r + c * tl.dot(s, s, input_precision=PRECISION)
        y = tl.dot(operand(p, HALF), u, a * y, input_precision=PRECISION)
    to = out + batch * out_batch + rows * out_row + columns * out_column
    tl.store(to, y.to(out.dtype.element_ty), mask=valid)
