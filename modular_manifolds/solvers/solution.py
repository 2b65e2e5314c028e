"""The result of a solve: a direction and a bound on its duality gap."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.tables import Printable, Table


class Status(Enum):
    """The outcome of a solve; the value is advice for the user."""

    CONVERGED = "The direction is the steepest one to within the tolerance."
    NOT_CONVERGED = (
        "The iterations ran out before the duality gap reached the tolerance. The direction is tangent "
        "and of at most unit length; the gap bounds how much steeper another direction can be. Raise "
        "max_iterations, loosen tolerance, or warm-start from the previous dual. If the gap does not "
        "fall at all, the point may be off its manifold or the gradient of very low rank."
    )
    NOT_CERTIFIED = (
        "The solver stopped by its own rule, which does not bound the gap. Compare `gap` with the gap you need, "
        "or use the solver that select() names."
    )

    def __str__(self) -> str:
        return f"{self.name}: {self.value}"


@dataclass(frozen=True)
class Solution(Printable):
    """The steepest tangent direction of unit length, with its certificate; `print` it to read it.

    A solve on an accelerator does not wait for its result: `status` is computed when it is read.

    Args:
        direction: A, shape (*batch, m, n); tangent, with `‖A‖ ≤ 1`. Zero if the gradient has no tangent part.
        gap: relative duality gap `(dual − primal)/dual`, between 0 and 1, shape (*batch): the direction descends at
            least `(1 − gap)` as steeply as any. Zero up to rounding for an exact formula, a bound for a
            direction by polynomials. NaN if the gradient or the point holds NaN or infinity.
        iterations: the number of iterations; 0 for a solver that does not iterate. A tensor in a compiled graph.
        tolerance: the gap that the solver aimed for; None if it stops by another rule.
        dual: the final dual variable, to warm-start the next solve; None for a closed form.
        shortfall: the status if the gap is above the tolerance, or if there is no tolerance.
    """

    direction: Tensor
    gap: Tensor
    iterations: int | Tensor = 0
    tolerance: float | None = None
    dual: Tensor | None = None
    shortfall: Status = Status.NOT_CONVERGED

    def __post_init__(self) -> None:
        if not isinstance(self.gap, Tensor):
            raise ArgumentError(
                "Solution(gap)",
                "must be a tensor with one gap for each matrix",
                repr(self.gap),
                "Pass Solution(direction, gap, iterations, tolerance, dual): the status is computed from the gap.",
            )

    @property
    def status(self) -> Status:
        """The outcome of the solve, by the largest gap of a stack. Reading it waits for the device."""
        return status_of(self.gap, self.tolerance, self.shortfall)

    def printed(self) -> list[Table | str]:
        """One row with the largest gap of a stack, and the status in words. Printing waits for the device."""
        shape = "×".join(map(str, self.direction.shape)) or "scalar"
        dtype = str(self.direction.dtype).removeprefix("torch.")
        gap = float(self.gap.max()) if self.gap.numel() else None
        row = [shape, dtype, gap, self.tolerance, int(self.iterations)]
        return [
            Table(["direction", "dtype", "gap", "tolerance", "iterations"], [row]),
            str(self.status),
        ]


def status_of(gap: Tensor, tolerance: float | None, shortfall: Status) -> Status:
    """CONVERGED if every gap is within the tolerance, else `shortfall`. NaN is never within it."""
    met = tolerance is not None and bool((gap <= tolerance).all())
    return Status.CONVERGED if met else shortfall


def relative_gap(primal: Tensor, dual: Tensor) -> Tensor:
    """`(dual − primal)/dual` of objectives of shape (*batch, 1, 1), between 0 and 1, shape (*batch).

    It is clamped to 1: it exceeds 1 only for an ascent direction, and the zero direction has gap 1.
    """
    # At unit scale a dual objective is of order one, unless the gradient is zero.
    gap = (dual - primal) / dual.clamp_min(SMALLEST_DIVISOR)
    return torch.where(dual < SMALLEST_DIVISOR**0.25, 0.0, gap.clamp(0, 1)).squeeze(-1).squeeze(-1)


SMALLEST_DIVISOR = 1e-290
"""The smallest float64 divisor; it is never added to a value."""
