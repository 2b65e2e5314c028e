"""Manifold Muon in closed form: one matrix sign of a skew matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modular_manifolds.errors import UnsupportedPairError
from modular_manifolds.linalg.backend import half_is_fast
from modular_manifolds.linalg.host import Numbers, on_host
from modular_manifolds.linalg.matrices import of_moderate_size
from modular_manifolds.linalg.newton_schulz import nearly_orthogonal_to_orthogonal, schedule
from modular_manifolds.linalg.polar_express import FULL, HALF, lowered
from modular_manifolds.linalg.skew_newton_schulz import (
    SMALL,
    exactly_skew,
    skew_iterate,
    skew_onward,
)
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.norms.base import Norm
from modular_manifolds.norms.rms_operator import RMSOperator, unit
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.skew_decomposed import by_decomposition
from modular_manifolds.solvers.skew_gap import SkewGap
from modular_manifolds.solvers.skew_lift import Lift, lift
from modular_manifolds.solvers.solution import Solution


@dataclass(frozen=True)
class SkewSign(Solver):
    """`A = −msign(G Wᵀ − W Gᵀ) W` for a tall W of any shape; a wide one is handled as its transpose.

    Every tangent A is `Ω W` with Ω skew, of shape m×m; and by Parrott's theorem Ω can be chosen with
    `‖Ω‖₂ = ‖A‖₂`. So the unit ball of the tangent space is the image of the unit ball of the skew matrices, where
    `<G, ΩW> = <Γ, Ω>` with `Γ = ½(G Wᵀ − W Gᵀ)`, which the skew `−msign(Γ)` minimises: the value is
    `−‖Γ‖_nuc`.

    Γ has rank 2n at most. Where m > 2n it is written in the orthonormal columns of `[W, G⊥ R⁻¹]`, with
    `C = WᵀG`, `G⊥ = G − WC` and `RᵀR = G⊥ᵀG⊥`:

        Γ = [[skew(C), −½Rᵀ], [½R, 0]]    of shape 2n×2n,    A = −(W Ω₁₁ + G⊥ R⁻¹ Ω₂₁).

    A little is added to `G⊥ᵀG⊥`, as much as rounding may have taken: so the factor exists, and a direction that the
    gradient hardly has gets less than its full step, never more.

    One small matrix on a CPU is decomposed. Elsewhere Ω comes from polynomials (in bfloat16 where Γ is large and
    the machine fast in it), is made exactly skew, and a last cubic step in the caller's precision brings every
    singular value to at most 1: the direction is feasible to rounding, whatever the accuracy; of a gradient that
    lacks a rank, where `R⁻¹` magnifies the rounding of G⊥, to half the digits. The gap is bounded without singular
    values, by `SkewGap`. Where that is not enough, the floor is lowered by further polynomials, and at last the work
    done in float64.

    Args:
        tolerance: on the relative duality gap.
        max_iterations: how often the gap may be looked at; between two looks the floor is lowered threefold.

    Source: M. Solonko, A. Molozhavenko, M. Rakhuba, "Muon on the Stiefel Manifold Admits an Exact Closed-Form Update"
    (2026, arXiv 2608.06218): the formula, its proof and the form of rank 2n. For square W, the Stiefel page of the
    Modula documentation. The extension of Ω is S. Parrott, "On a quotient norm and the Sz.-Nagy–Foiaş lifting
    theorem" (1978), in the form of C. Davis, W. Kahan, H. Weinberger, "Norm-preserving dilations and their
    applications to optimal error bounds" (1982).
    """

    tolerance: float = 1e-2
    max_iterations: int = 16

    half_the_digits = True
    name = "skew-sign"
    reason = "the steepest direction is −msign(G Wᵀ − W Gᵀ) W, and its gap is known beforehand"

    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        del dual
        if not isinstance(manifold, Stiefel):
            raise UnsupportedPairError(
                "manifold", "must be Stiefel for this solver", manifold, "Use solver='auto'."
            )
        w, wide = manifold.unit_tall(point)
        g, size = of_moderate_size(gradient)
        g = g.mT if wide else g
        found = self._decomposed(w, g, size) or self._search(lift(w, g))
        if not found.converged and w.dtype is not torch.float64:
            # Of a gradient of low rank the rest is all rounding in float32, a bound no better than its root.
            w, g = nearly_orthogonal_to_orthogonal(w.double()), g.double()
            found = self._search(lift(w, g), looks=found.looks, floor=found.floor / 16)
        a = (found.a.mT if wide else found.a).to(point.dtype)
        return Solution(
            unit(point) * a if isinstance(norm, RMSOperator) else a,
            torch.as_tensor(found.gap, device=w.device).reshape(w.shape[:-2]),
            found.looks,
            self.tolerance,
        )

    def _decomposed(self, w: Tensor, g: Tensor, size: float | None) -> _Found | None:
        """For one matrix in the host's memory with a small Γ; None elsewhere."""
        rows, columns = w.shape[-2:]
        if w.dim() != 2 or not w.is_cpu or min(rows, 2 * columns) > TINY:
            return None
        size = float(torch.linalg.vector_norm(g)) if size is None else size
        a, gap = by_decomposition(w, g, size=size)
        return _Found(a, np.array([gap]), gap <= self.tolerance, 1, math.inf)

    def _search(self, problem: Lift, *, looks: int = 0, floor: float = math.inf) -> _Found:
        """Lower the floor until the gap is small, or rounding would decide it; from `floor` on, if that is lower."""
        gamma = problem.gamma
        # Then the direction itself is as soon found as what it will be.
        small = gamma.dim() == 2 and gamma.shape[-1] <= SMALL
        k, eps = gamma.shape[-1], torch.finfo(gamma.dtype).eps
        half = (
            gamma.dtype is torch.float32
            and self.tolerance >= COARSE
            and k >= LARGE
            and half_is_fast(gamma.device.type)
        )
        # Nothing below rounding can be asked for, of the gap or of small singular values.
        wanted = max(self.tolerance, 16 * eps)
        accuracy = wanted / 2 if half else math.sqrt(wanted / 12)
        lowest = wanted / 15 if half else min(100 * eps, wanted)
        # In a stack the worst matrix decides, and of a large one many singular values are small.
        first = 10 if half else 5 if k >= LARGE or gamma.dim() > 2 else 1
        floor = max(min(floor, wanted / first), lowest)
        run = schedule(accuracy, floor, half=half)
        x, size = skew_iterate(gamma, run, half=half)
        (size,) = on_host(size)
        while True:
            looks += 1
            last = floor <= lowest or looks >= self.max_iterations or not np.isfinite(size).all()
            bound = SkewGap.of(run, floor, size, x.dtype)
            if last or small or bound.seems_met(problem, x, self.tolerance):
                omega = exactly_skew(x, gamma.dtype)
                a, descent, most = problem.direction(omega)
                gap = bound.gap(problem, omega, descent, most)
                converged = bool((gap <= self.tolerance).all())
                if converged or last:
                    return _Found(a, gap, converged, looks, floor)
            floor = max(floor / 3, lowest)
            longer = lowered(run, floor, math.sqrt(wanted / 5), HALF if half else FULL)
            x, run = skew_onward(x, longer[len(run) :]), longer


LARGE = 512
"""From this many columns on, bfloat16 is the quicker where the machine has hardware for it."""
TINY = 32
"""Up to so many columns of Γ one decomposition costs less than the calls of all the products."""
COARSE = 1e-2
"""From this tolerance on, bfloat16 is accurate enough."""


@dataclass(frozen=True)
class _Found:
    a: Tensor  # tall
    gap: Numbers
    converged: bool
    looks: int
    floor: float
