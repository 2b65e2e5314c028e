"""Muon on rows, in Euclidean space and in the spectral ball: the polynomials of `msign` on one Gram matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.gram_newton_schulz import even_steps
from modular_manifolds.linalg.matrices import MATRIX, inner
from modular_manifolds.linalg.msign_gap import gap_from_sums
from modular_manifolds.linalg.newton_schulz import schedule
from modular_manifolds.linalg.products import multiply, product
from modular_manifolds.linalg.rows import SharedRows
from modular_manifolds.linalg.spectral_cap import cap_factor, largest_in_radii
from modular_manifolds.norms.spectral import MSIGN_FLOOR, msign_accuracy
from modular_manifolds.solvers.row_sharded.plan import RowPlan, triangle
from modular_manifolds.solvers.solution import Solution, Status


@dataclass(frozen=True)
class MuonRows(RowPlan):
    """`A = −G Q`, `Q = q(GᵀG)` with q the polynomials of `msign`, from one sum; a second one caps the point in a ball.

    `GᵀG` is summed in float64, and so are the polynomials: a Gram matrix holds squares, and values below the root of its
    eps are rounding. In float64 this is far below the floor of the polynomials, so that one Gram matrix serves all of them.

    Args:
        dtype: of the weight.
        radius: that of the ball; None for Euclidean space.
    """

    dtype: torch.dtype
    radius: float | None

    @property
    def sums(self) -> tuple[tuple[int, int], ...]:
        count = triangle(self.columns)
        return ((count, 8),) if self.radius is None else ((count, 8), (count, self.dtype.itemsize))

    @property
    def accuracy(self) -> float:
        """The accuracy of the norm's own direction."""
        return msign_accuracy((self.columns, self.columns))

    @property
    def polynomials(self) -> tuple[Polynomial, ...]:
        """Those of `msign` in the dtype of the weight."""
        return schedule(self.accuracy, MSIGN_FLOOR / self.columns**0.25)

    def _solve(self, w: Tensor, g: Tensor, rows: SharedRows) -> tuple[Tensor, Tensor, int]:
        del w
        r = rows.gram(g.double())
        square = torch.linalg.vector_norm(r, dim=MATRIX, keepdim=True)
        # A zero gradient has a zero direction and no gap. NaN stays NaN.
        zero = square == 0
        square = torch.where(zero, 1.0, square)
        r, size = r / square, square.sqrt()
        q = even_steps(r, self.polynomials)
        qr = multiply(q, r)
        gap = gap_from_sums(
            qr.diagonal(dim1=-2, dim2=-1).sum(dim=-1),
            _number(inner(qr, q)),
            _number(torch.where(zero, 0.0, 1.0).to(r.dtype)),
            accuracy=self.accuracy,
            floor=MSIGN_FLOOR,
            columns=self.columns,
            polynomials=self.polynomials,
        )
        return product(g, (q / -size).to(g.dtype)), gap, 0

    def _retract(self, w: Tensor, a: Tensor, length: float, rows: SharedRows) -> Tensor:
        moved = w + a
        if self.radius is None:
            return moved
        y, largest = moved / self.radius, largest_in_radii(length / self.radius)
        one = y.new_ones((*y.shape[:-2], 1, 1))
        root, above = cap_factor(rows.gram(y), one, largest)
        return torch.where(above, product(moved, root), moved)

    def _solution(self, direction: Tensor, gap: Tensor, looks: int) -> Solution:
        # There is no iteration that could improve the direction.
        return Solution(direction, gap, looks, self.tolerance, shortfall=Status.NOT_CERTIFIED)

    def __str__(self) -> str:
        sums = "one sum" if self.radius is None else "two sums"
        return (
            f"every process steps its rows after {sums} of {self.columns}×{self.columns}; an msign by "
            f"{len(self.polynomials)} polynomials on the Gram matrix in float64, to within {self.accuracy:g}"
        )


def _number(x: Tensor) -> Tensor:
    """Numbers of shape (*batch, 1, 1) in shape (*batch)."""
    return x.squeeze(-1).squeeze(-1)
