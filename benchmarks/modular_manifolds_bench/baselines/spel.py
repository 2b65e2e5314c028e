"""Manifold Muon by the msign of the Riemannian gradient: a baseline of one shot."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.linalg.matrix_sign import msign
from modular_manifolds.linalg.symmetric import sym
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.solution import Solution, Status
from modular_manifolds_bench.baselines.baseline import Baseline
from modular_manifolds_bench.baselines.stiefel_dual import StiefelDual


@dataclass(frozen=True)
class SPEL(Baseline):
    """For Stiefel × Spectral the msign of the Riemannian gradient: `A = −msign(G − W sym(WᵀG))`.

    This is the direction at `Λ = −½ sym(WᵀG)`, from which the other solvers start. It is tangent for a square
    W only. The paper steps along it and projects back to the manifold; here the direction is its tangent
    part, shrunk into the unit ball, which can be certified like other directions.

    Args:
        accuracy: the accuracy of the msign.

    Source: "Manifold constrained steepest descent" (2026, arXiv 2601.21487).
    """

    accuracy: float = 1e-3

    name = "spel"
    reason = "it needs one msign and no iteration, kept as a baseline"

    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        del dual
        problem = StiefelDual.of(manifold, norm, point, gradient)
        multiplier = -sym(problem.c) / 2
        riemannian = problem.gradient + problem.w @ (2 * multiplier).to(problem.w.dtype)
        a = problem.feasible(-msign(riemannian, accuracy=self.accuracy))
        a, gap = problem.certified(a, multiplier)
        return Solution(problem.given(a), gap, 0, dual=multiplier, shortfall=Status.NOT_CERTIFIED)
