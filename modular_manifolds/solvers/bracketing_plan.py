"""The fields of the plans that search one multiplier on the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.solvers.plan import Plan


@dataclass(frozen=True)
class BracketingPlan(Plan):
    """A plan for the CPU that closes a bracket of one multiplier in float64, until the gap is within the tolerance.

    Args:
        manifold: gives the normal.
        length: the spectral norm of the direction.
        max_iterations: the largest number of decompositions.
        shape_of_dual: the shape of the two ends' λ, for a warm start.
    """

    manifold: Manifold
    length: float
    max_iterations: int
    shape_of_dual: tuple[int, ...]

    decides_on_host = True
    gap_dtype = torch.float64

    @property
    def dual_shape(self) -> tuple[int, ...]:
        return self.shape_of_dual
