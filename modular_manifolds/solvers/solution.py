"""The result of a solve: a direction, and how far it may be from the steepest one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.tables import Printable, Table


class Status(Enum):
    """How a solve ended. The value is the sentence a user needs."""

    CONVERGED = "The direction is the steepest to within the tolerance asked for."
    NOT_CONVERGED = (
        "The iterations ran out before the duality gap reached the tolerance; the direction is tangent "
        "and of at most unit length, and the gap says how far from the steepest it may be. Raise "
        "max_iterations, loosen tolerance, or warm-start from the previous dual; a gap that does not "
        "fall at all points to a point off its manifold or to a gradient of very low rank."
    )
    NOT_CERTIFIED = (
        "The solver stopped by its own rule, which bounds no gap; compare `gap` with what you need, or "
        "use the solver that select() names."
    )

    def __str__(self) -> str:
        return f"{self.name}: {self.value}"


@dataclass(frozen=True)
class Solution(Printable):
    """The steepest tangent direction of unit length, with its certificate; `print` it to read it.

    A solve on an accelerator does not wait for its numbers: `status` is computed when it is read.

    Args:
        direction: shape (*batch, m, n); tangent, `‖A‖ ≤ 1`, and `<G, A>` as low as the gap promises.
            Zero if the gradient has no tangent part.
        gap: relative duality gap `(dual − primal)/dual`, between 0 and 1, shape (*batch): the direction descends at
            least `(1 − gap)` as steeply as any. Zero up to rounding for an exact formula, a bound for a
            direction by polynomials. NaN if the gradient or the point holds NaN or infinity.
        iterations: how many the solver used; 0 for a solver that does not iterate. A tensor in a compiled graph.
        tolerance: the gap that was asked for; None if the solver stops by another rule.
        dual: the dual variable at the end, to warm-start the next solve; None for a closed form.
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
                "must be a tensor of one gap a matrix",
                repr(self.gap),
                "Pass Solution(direction, gap, iterations, tolerance, dual): the status is computed from the gap.",
            )

    @property
    def status(self) -> Status:
        """How the solve ended; the worst matrix of a stack decides. Reading it waits for the device."""
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
    """CONVERGED if every gap is within the tolerance, else `shortfall`. A gap of NaN is not within it."""
    met = tolerance is not None and bool((gap <= tolerance).all())
    return Status.CONVERGED if met else shortfall


def relative_gap(primal: Tensor, dual: Tensor) -> Tensor:
    """`(dual − primal)/dual` of objectives of shape (*batch, 1, 1), between 0 and 1, shape (*batch).

    It is more than 1 only for a direction that goes uphill: a zero direction is better, and its gap is 1.
    """
    # At unit scale a dual objective is of order one, or there was no gradient.
    short = (dual - primal) / dual.clamp_min(SMALLEST_DIVISOR)
    return (
        torch.where(dual < SMALLEST_DIVISOR**0.25, 0.0, short.clamp(0, 1)).squeeze(-1).squeeze(-1)
    )


SMALLEST_DIVISOR = 1e-290
"""Smallest float64 divisor; never added to a value."""
