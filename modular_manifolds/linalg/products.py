"""Matrix products, each in the way that is quickest for its layout, its size and what is known of the result."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.linalg.backend import onednn_linear
from modular_manifolds.linalg.matrices import readable

SYMMETRY_MIN_COLUMNS: Final = 512
"""The fewest columns at which a processor saves more by leaving out blocks that symmetry gives than their calls cost."""


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """`A B`; two matrices in float32 go to oneDNN if that is quicker."""
    if a.dim() == 3 and b.dim() == 3:
        return torch.bmm(a, b)
    by_onednn = onednn_product(a, b)
    if by_onednn is None:
        return a @ b
    b = b if b.is_contiguous() or b.mT.is_contiguous() else b.contiguous()
    if not a.is_contiguous() and not b.is_contiguous():
        return by_onednn(b.mT, a if a.mT.is_contiguous() else a.contiguous()).mT
    return by_onednn(a.contiguous(), b.mT)


def product(a: Tensor, b: Tensor) -> Tensor:
    """`A B` with b n×n, laid out in memory as A is: a transposed view gives a transposed view."""
    return multiply(b.mT, a.mT).mT if _is_transposed(a) else multiply(a, b)


def plus_product(x: Tensor, a: Tensor, b: Tensor, *, factor: float = 1.0) -> Tensor:
    """`X + factor · A B` with b n×n, in the layout of X."""
    return combined(x, a, b, beta=1.0, alpha=factor)


def combined(
    x: Tensor, a: Tensor, b: Tensor, *, beta: float, alpha: float, over: bool = False
) -> Tensor:
    """`beta · X + alpha · A B` in the layout of X; `over` allows to write it over X, which saves a copy."""
    if _is_transposed(x):
        return combined(x.mT, b.mT, a.mT, beta=beta, alpha=alpha, over=over).mT
    if onednn_product(a, b) is not None:
        # The factor goes to the smaller one, the sum into the memory of the product.
        small = a.numel() <= b.numel()
        a, b = (alpha * a, b) if small else (a, alpha * b)
        return multiply(a, b).add_(x, alpha=beta)
    if x.dim() == 2:
        add = x.addmm_ if over else x.addmm
        return add(a, b, beta=beta, alpha=alpha)
    if x.dim() == 3:
        return torch.baddbmm(x, a, b, beta=beta, alpha=alpha)
    return beta * x + alpha * (a @ b)


def commuting(a: Tensor, b: Tensor, *, sign: int = 1) -> Tensor:
    """`A B` if it is known to be symmetric (`sign=1`) or skew (`sign=-1`).

    Products of polynomials in one symmetric or skew matrix are. A processor computes one triangle of blocks of a large one.
    """
    if not saves_by_symmetry(b):
        return multiply(a, b)
    result = a.new_empty(*a.shape[:-1], b.shape[-1])
    for start, end in _blocks(a, b):
        _multiply_into(result[..., start:end, start:], a[..., start:end, :], b[..., start:])
        _mirror(result, start, end, sign)
    return result


def commuting_combined(x: Tensor, a: Tensor, b: Tensor, *, beta: float, alpha: float) -> Tensor:
    """`beta · X + alpha · A B` of square matrices if X and `A B` are known to be symmetric."""
    if not saves_by_symmetry(a):
        return combined(x, a, b, beta=beta, alpha=alpha)
    if a.dim() != 2 or torch.is_grad_enabled() or onednn_product(a, b) is not None:
        return commuting(a, b).mul_(alpha).add_(x, alpha=beta)
    result = torch.empty_like(a)
    for start, end in _blocks(a, b):
        block = result[start:end, start:]
        torch.addmm(
            x[start:end, start:], a[start:end], b[:, start:], beta=beta, alpha=alpha, out=block
        )
        _mirror(result, start, end, 1)
    return result


def gram_product(x: Tensor) -> Tensor:
    """`XᵀX`; of a large one a processor computes one triangle of blocks."""
    columns = x.shape[-1]
    if not saves_by_symmetry(x):
        return multiply(x.mT, x)
    result = x.new_empty((*x.shape[:-2], columns, columns))
    for start, end in _blocks(x.mT, x):
        _multiply_into(result[..., start:end, start:], x[..., start:end].mT, x[..., start:])
        _mirror(result, start, end, 1)
    return result


def gram_in_float64(x: Tensor) -> Tensor:
    """`XᵀX` in float64, without a derivative; a few rows of X at a time are converted."""
    if x.dtype is torch.float64 or x.dim() > 3:
        return gram_product(x.double())
    columns = x.shape[-1]
    result = x.new_zeros((*x.shape[:-2], columns, columns), dtype=torch.float64)
    saves = x.dim() == 2 and saves_by_symmetry(x)
    blocks = _blocks(x.mT, x) if saves else [(0, columns)]
    for rows in x.split(max(columns, CONVERTED_MIN_ROWS), dim=-2):
        rows = rows.double()
        if x.dim() == 3:
            result.baddbmm_(rows.mT, rows)
            continue
        for start, end in blocks:
            result[start:end, start:].addmm_(rows[:, start:end].mT, rows[:, start:])
    for start, end in blocks[:-1]:
        _mirror(result, start, end, 1)
    return result


CONVERTED_MIN_ROWS: Final = 512
"""The fewest rows that are converted at a time."""


def saves_by_symmetry(x: Tensor) -> bool:
    """Whether a processor computes one triangle of blocks of products with as many columns as X, and mirrors it."""
    return x.shape[-1] >= SYMMETRY_MIN_COLUMNS and readable(x)


def _blocks(a: Tensor, b: Tensor) -> list[tuple[int, int]]:
    """Rows of blocks of `A B` of at least `BLOCK_MIN_ROWS` rows: more blocks leave out more, and are slower to multiply."""
    columns, most = b.shape[-1], BLOCKS if onednn_product(a, b) is None else ONEDNN_BLOCKS
    count = max(2, min(most, columns // BLOCK_MIN_ROWS))
    edges = [columns * i // count for i in range(count + 1)]
    return list(itertools.pairwise(edges))


BLOCKS: Final = 8
"""The largest number of blocks of rows with torch's BLAS."""
ONEDNN_BLOCKS: Final = 4
"""The number with oneDNN, which multiplies thin blocks more slowly and whose products are copied."""
BLOCK_MIN_ROWS: Final = 128
"""The smallest number of rows of a block."""


def _multiply_into(out: Tensor, a: Tensor, b: Tensor) -> None:
    """Write `A B` to `out`, without a copy if torch can."""
    if not torch.is_grad_enabled() and onednn_product(a, b) is None:
        torch.matmul(a, b, out=out)
    else:
        out.copy_(multiply(a, b))


def _mirror(result: Tensor, start: int, end: int, sign: int) -> None:
    """Fill the columns below the block from its row of blocks."""
    right, below = result[..., start:end, end:].mT, result[..., end:, start:end]
    if sign > 0:
        below.copy_(right)
    elif torch.is_grad_enabled():
        below.copy_(-right)
    else:
        torch.neg(right, out=below)


def onednn_product(a: Tensor, b: Tensor) -> Callable[[Tensor, Tensor], Tensor] | None:
    """`(X, Y) ↦ X Yᵀ` by oneDNN if that is the quicker way to `A B`; None otherwise.

    X must be contiguous, Y or Yᵀ too. It has no derivative, so it is not offered if one may be recorded.
    """
    if (
        a.dtype is not torch.float32
        or a.dim() != 2
        or b.dim() != 2
        or min(a.shape[0], a.shape[1], b.shape[1]) < ONEDNN_MIN_SIDE
        or torch.is_grad_enabled()
        or a.device.type != "cpu"
        or b.dtype is not torch.float32
        or torch.compiler.is_compiling()
    ):
        return None
    linear = onednn_linear()
    return None if linear is None else lambda x, y: linear(x, y, None, "none", [], "")


ONEDNN_MIN_SIDE: Final = 128
"""Smallest side from which a product in float32 is quicker by oneDNN."""


def _is_transposed(x: Tensor) -> bool:
    """Whether a processor should compute the transpose. Accelerators multiply all layouts alike."""
    return x.is_cpu and x.stride(-1) != 1 and x.stride(-2) == 1
