"""The outcome of one weight's last solve."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.solvers.solution import Status


@dataclass(frozen=True)
class Diagnosis:
    """How one weight's last solve ended. `gap` is its relative duality gap, of each matrix of a stack, still on the device."""

    iterations: int
    gap: Tensor
    worst: Status
    tolerance: float | None

    @property
    def status(self) -> Status:
        """This weight's own status, of its worst matrix; it may have converged where another of its batch did not."""
        if self.tolerance is not None and float(self.gap.max()) <= self.tolerance:
            return Status.CONVERGED
        return self.worst
