"""A Triton program that asks for the place of every tile of a lower triangle."""

import triton
import triton.language as tl
from modular_manifolds_kernels.programs.scales import triangle


@triton.jit
def places(rows, columns, BLOCK: tl.constexpr):
    """Row and column of the tiles 0 … BLOCK − 1."""
    index = tl.arange(0, BLOCK)
    row, column = triangle(index)
    tl.store(rows + index, row)
    tl.store(columns + index, column)
