"""The first part of a retraction for matrices too large for one program: the step and the normalisation."""

import triton
import triton.language as tl

from modular_manifolds_kernels.programs.scales import step_length
from modular_manifolds_kernels.programs.stiefel_retract import step_strip


@triton.jit
def move(
    w,
    a,
    out,
    lengths,
    eta,
    each,
    unit,
    n,
    k,
    w_batch,
    w_row,
    w_column,
    a_batch,
    a_row,
    a_column,
    out_batch,
    out_row,
    out_column,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """`(W + fA)/√(1 + η²)`, one tile for each program; grid (batch · row tiles · column tiles,), matrix by matrix.

    The length η of the step and the factor f are passed as in `stiefel_retract`.
    """
    columns_of_tiles = tl.cdiv(k, BLOCK_K)
    count = tl.cdiv(n, BLOCK) * columns_of_tiles
    tile = tl.program_id(0) % count
    batch = (tl.program_id(0) // count).to(tl.int64)
    top = ((tile // columns_of_tiles) * BLOCK).to(tl.int64)
    left = ((tile % columns_of_tiles) * BLOCK_K).to(tl.int64)
    rows = tl.arange(0, BLOCK)[:, None]
    columns = tl.arange(0, BLOCK_K)[None, :]
    valid = (rows < n - top) & (columns < k - left)
    factor, shrink = step_length(lengths, eta, each, unit, batch)
    w += batch * w_batch + top * w_row + left * w_column
    a += batch * a_batch + top * a_row + left * a_column
    out += batch * out_batch + top * out_row + left * out_column
    x = step_strip(w, a, factor, rows, columns, w_row, w_column, a_row, a_column, valid) * shrink
    value = x.to(out.dtype.element_ty)
    tl.store(out + rows * out_row + columns * out_column, value, mask=valid)
