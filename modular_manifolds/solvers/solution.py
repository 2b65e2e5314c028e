"""The result of a solve: a direction, and how far it may be from the steepest one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor


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
class Solution:
    """The steepest tangent direction of unit length, with its certificate.

    Args:
        direction: shape (*batch, m, n); tangent, `‖A‖ ≤ 1`, and `<G, A>` as low as the gap promises.
            Zero where the gradient has no tangent part.
        status: how the solve ended; of a batch, the worst.
        iterations: how many the solver used; 0 for a solver that does not iterate.
        gap: relative duality gap `(dual − primal)/dual`, between 0 and 1, shape (*batch): the direction descends at
            least `(1 − gap)` as steeply as any. Zero up to rounding for an exact formula, a bound for a
            direction by polynomials. NaN where the gradient or the
            point holds NaN or infinity; the status is not CONVERGED then.
        tolerance: the gap that was asked for; None where the solver stops by another rule.
        dual: the dual variable at the end, to warm-start the next solve; None for a closed form.
    """

    direction: Tensor
    status: Status
    iterations: int
    gap: Tensor
    tolerance: float | None = None
    dual: Tensor | None = None


def relative_gap(primal: Tensor, dual: Tensor) -> Tensor:
    """`(dual − primal)/dual` of objectives of shape (*batch, 1, 1), between 0 and 1, shape (*batch).

    It is more than 1 only for a direction that goes uphill: a zero direction is better, and its gap is 1.
    """
    # At unit scale a dual objective is of order one, or there was no gradient.
    short = (dual - primal) / dual.clamp_min(TINY)
    return torch.where(dual < TINY**0.25, 0.0, short.clamp(0, 1))[..., 0, 0]


TINY = 1e-290
"""Added to nothing and divided by in place of zero, in float64."""
