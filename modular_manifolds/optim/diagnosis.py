"""The outcome of one weight's last solve."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.solvers.solution import Status, status_of


@dataclass(frozen=True)
class Diagnosis:
    """How one weight's last solve ended.

    Args:
        iterations: how many the solver used.
        gap: the relative duality gap, of each matrix of a stack, on the weight's device.
        tolerance: the gap that was asked for; None if the solver stops by another rule.
        shortfall: the status if the gap is above the tolerance.
    """

    iterations: int | Tensor
    gap: Tensor
    tolerance: float | None
    shortfall: Status = Status.NOT_CONVERGED

    @property
    def status(self) -> Status:
        """This weight's own status, by its worst matrix; reading it waits for the device."""
        return status_of(self.gap, self.tolerance, self.shortfall)
