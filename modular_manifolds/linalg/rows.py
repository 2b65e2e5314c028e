"""Products over all rows of tall matrices, whether one process holds them or several hold some each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX
from modular_manifolds.linalg.products import gram_product, multiply

Total = Callable[[Tensor], Tensor]
"""The sum of a tensor over all processes: the same bits on each of them. It may write to its argument."""


class Rows:
    """Products of tall matrices, all rows of which are in this process."""

    def cross(self, a: Tensor, b: Tensor) -> Tensor:
        """`AᵀB`, shape (*batch, n, n)."""
        return multiply(a.mT, b)

    def gram(self, x: Tensor) -> Tensor:
        """`XᵀX`, shape (*batch, n, n)."""
        return gram_product(x)


ROWS: Final = Rows()


@dataclass(frozen=True)
class SharedRows(Rows):
    """The same products of matrices of which every process holds some rows, or none.

    Every method is one sum over the processes. The results are the same bits on every process, and so is all that is
    computed from them alone by the same program on the same hardware.

    Args:
        total: the sum over the processes.
    """

    total: Total

    def cross(self, a: Tensor, b: Tensor) -> Tensor:
        return self.total(super().cross(a, b))

    def gram(self, x: Tensor) -> Tensor:
        """`XᵀX`, of which one triangle is sent: n(n + 1)/2 numbers."""
        return unfolded(self.total(folded(super().gram(x))), x.shape[-1])

    def largest_entry(self, x: Tensor) -> Tensor:
        """The sum over the processes of their largest `|x_ij|`, shape (*batch, 1, 1), in at least float64."""
        shape = (*x.shape[:-2], 1, 1)
        largest = x.abs().amax(dim=MATRIX).reshape(shape) if x.numel() else x.new_zeros(shape)
        return self.total(largest.double()).clamp_max(torch.finfo(torch.float64).max)

    def cross_and_square(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """`AᵀB`, and `‖B‖_F²` of shape (*batch, 1, 1), in one sum of n² + 1 numbers."""
        product = super().cross(a, b)
        square = torch.linalg.vector_norm(b, dim=MATRIX, keepdim=True).square()
        both = torch.cat((product.flatten(-2), square.squeeze(-1)), dim=-1)
        entries = both.shape[-1] - 1
        product_of_all, square_of_all = self.total(both).split([entries, 1], dim=-1)
        return product_of_all.reshape(product.shape), square_of_all.unsqueeze(-1)


def folded(x: Tensor) -> Tensor:
    """The lower triangle of symmetric n×n matrices as a rectangle of n(n + 1)/2 numbers.

    The first k = ⌈n/2⌉ columns have room above the diagonal for the triangle of the last n − k, transposed; if n is even,
    one row more is needed. Source: LAPACK's rectangular full packed format.
    """
    n = x.shape[-1]
    k, odd = (n + 1) // 2, n % 2
    left = torch.tril(x.narrow(-1, 0, k))
    right = torch.triu(x.narrow(-2, k, n - k).narrow(-1, k, n - k))
    left = torch.nn.functional.pad(left, (0, 0, 1 - odd, 0))
    left.narrow(-2, 0, n - k).narrow(-1, odd, n - k).add_(right)
    return left


def unfolded(rectangle: Tensor, n: int) -> Tensor:
    """The symmetric n×n matrices of which `folded` made the rectangles, exactly symmetric."""
    k, odd = (n + 1) // 2, n % 2
    left = torch.tril(rectangle.narrow(-2, 1 - odd, n))
    right = torch.triu(rectangle.narrow(-2, 0, n - k).narrow(-1, odd, n - k))
    lower = torch.cat((left, torch.nn.functional.pad(right.mT, (0, 0, k, 0))), dim=-1)
    return lower + torch.tril(lower, -1).mT
