"""A row plan: all choices of a step that processes take together, each on its rows of a tall matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.linalg.matrices import exact_scale_for
from modular_manifolds.linalg.rows import SharedRows
from modular_manifolds.solvers.solution import Solution


@dataclass(frozen=True)
class RowPlan(ABC):
    """The method by which processes that hold some rows each, or none, step a tall matrix; `print` it to read it.

    A wide matrix of which every process holds some columns is handled as its transpose. A plan depends on the shape of
    the whole weight, its dtype, the device's type and settings only. The processes compute sums of n×n matrices, and each
    repeats what follows from these: the same bits, if program and hardware are the same. No m×n matrix is gathered, and
    the number of sums and their sizes do not depend on data.

    Blocks have shape (*batch, k, n), or (*batch, n, k) if the weight is wide, in at least float32; k is the number of rows
    in this process and may be 0. `solve` and `retract` run inside `linalg.surroundings.undisturbed`.

    Args:
        tolerance: the relative duality gap that the plan aims for.
        unit: the spectral norm of the direction.
        columns: n, the smaller side.
        turned: blocks are columns of a wide matrix.
    """

    tolerance: float
    unit: float
    columns: int
    turned: bool

    @property
    @abstractmethod
    def sums(self) -> tuple[tuple[int, int], ...]:
        """The numbers of each sum of a step, for one matrix, and the bytes of one of them. The scale is not counted."""

    @property
    def bytes_per_step(self) -> int:
        """The bytes of one matrix that a process contributes to the sums of a step."""
        return sum(count * size for count, size in self.sums)

    def solve(
        self, point: Tensor, gradient: Tensor, rows: SharedRows, *, largest: Tensor | None = None
    ) -> Solution:
        """The rows of the steepest direction in this process, and the gap of the whole direction.

        Args:
            point: the block of W.
            gradient: the block of G.
            rows: sums over the processes.
            largest: `max |G_ij|` of each whole matrix, shape (*batch, 1, 1); None to find it by one more sum, of one number
                a matrix. It sets a scale, so a bound on it that is a few times as large is as good.
        """
        w, g = self._tall(point), self._tall(gradient)
        largest = rows.largest_entry(g) if largest is None else largest
        a, gap, looks = self._solve(w, g * exact_scale_for(largest, g.dtype), rows)
        a = a if self.unit == 1.0 else a.mul_(self.unit)
        return self._solution(a.mT if self.turned else a, gap, looks)

    def retract(self, point: Tensor, step: Tensor, length: float, rows: SharedRows) -> Tensor:
        """The rows of the point to which the step leads.

        Args:
            point: the block of W.
            step: the block of the step.
            length: a bound on the spectral norm of the whole step.
            rows: sums over the processes.
        """
        landed = self._retract(self._tall(point), self._tall(step), length, rows)
        return landed.mT if self.turned else landed

    def deeper(self, gap: float | None = None) -> RowPlan | None:
        """A plan with a smaller gap for more work and no more sums; None if there is none."""
        del gap
        return None

    @abstractmethod
    def _solve(self, w: Tensor, g: Tensor, rows: SharedRows) -> tuple[Tensor, Tensor, int]:
        """A of spectral norm 1, its gap, and the number of looks, for G with entries of size 1."""

    @abstractmethod
    def _retract(self, w: Tensor, a: Tensor, length: float, rows: SharedRows) -> Tensor: ...

    def _solution(self, direction: Tensor, gap: Tensor, looks: int) -> Solution:
        return Solution(direction, gap, looks, self.tolerance)

    def _tall(self, x: Tensor) -> Tensor:
        return x.mT if self.turned else x

    @abstractmethod
    def __str__(self) -> str:
        """The plan in words, as a sentence without its full stop."""


def triangle(columns: int) -> int:
    """n(n + 1)/2, the numbers of a symmetric n×n matrix."""
    return columns * (columns + 1) // 2
