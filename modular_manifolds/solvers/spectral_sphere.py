"""The spectral sphere with the spectral norm: one multiplier, found between two brackets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX, inner, more_than_rounding, normalise
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.spectral_sphere import top_pair
from modular_manifolds.norms.base import Norm
from modular_manifolds.norms.rms_operator import RMSOperator, unit
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.solution import Solution, Status, relative_gap


@dataclass(frozen=True)
class SpectralSphereDual(Solver):
    """`min <G, A>` subject to `‖A‖₂ ≤ 1` and `<N, A> = 0`, `N = u vᵀ` the top singular pair of W.

    The dual is `max over λ of −‖G + λN‖_nuc`, convex in one number, with slope `<N, msign(G + λN)>`. The root
    of the slope is looked for within `|λ| ≤ ‖G‖_nuc`: halving, or where the tangents of the
    two ends meet. The directions at both ends lie in the ball and have `<N, A>` of opposite sign; the mix
    of the two that has none is feasible exactly, and descends nearly as far as the dual allows.

    Args:
        tolerance: stop when the relative duality gap is at most this.
        max_iterations: decompositions at most.
    """

    tolerance: float = 1e-6
    max_iterations: int = 60

    name = "spectral-sphere-dual"
    reason = "one multiplier is left, the root of a monotone function"

    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        del dual  # the bracket closes from both sides: an end that is nearly right saves nothing
        length = unit(point) if isinstance(norm, RMSOperator) else 1.0
        g = normalise(gradient, dim=MATRIX)
        there = more_than_rounding(manifold.tangent(point, g), dim=MATRIX)
        g, n = torch.where(there, g, 0.0).double(), top_pair(point)
        width = torch.linalg.svdvals(g).sum(dim=-1)[..., None, None]
        low, high = _Trial.at(g, n, -width), _Trial.at(g, n, width)
        best = torch.minimum(low.objective, high.objective)
        iterations = 0
        while True:
            a = _mix(low, high)
            gap = relative_gap(-inner(g, a), best)
            converged = float(gap.max()) <= self.tolerance
            if converged or iterations >= self.max_iterations:
                break
            if iterations % 3 == 2:
                aim = (low.multiplier + high.multiplier) / 2
            else:
                aim = _where_tangents_meet(low, high)
            trial = _Trial.at(g, n, aim)
            best = torch.minimum(best, trial.objective)
            low, high = trial.where(trial.slope <= 0, low), trial.where(trial.slope > 0, high)
            iterations += 1
        return Solution(
            (length * a).to(gradient.dtype),
            Status.CONVERGED if converged else Status.NOT_CONVERGED,
            iterations,
            gap,
            self.tolerance,
        )


@dataclass(frozen=True)
class _Trial:
    """One λ with its direction `−msign(G + λN)`, objective and slope, each (*batch, 1, 1)."""

    multiplier: Tensor
    direction: Tensor
    objective: Tensor
    slope: Tensor

    @classmethod
    def at(cls, g: Tensor, n: Tensor, multiplier: Tensor) -> _Trial:
        u, sigma, vh = torch.linalg.svd(g + multiplier * n, full_matrices=False)
        # Where G has no direction of its own, msign has none either.
        kept = (sigma > 1e-14 * sigma[..., :1]).to(u.dtype).unsqueeze(-2)
        direction = -((u * kept) @ vh)
        objective = sigma.sum(dim=-1)[..., None, None]
        return cls(multiplier, direction, objective, -inner(n, direction))

    def where(self, ours: Tensor, other: _Trial) -> _Trial:
        return _Trial(
            torch.where(ours, self.multiplier, other.multiplier),
            torch.where(ours, self.direction, other.direction),
            torch.where(ours, self.objective, other.objective),
            torch.where(ours, self.slope, other.slope),
        )


def _mix(low: _Trial, high: _Trial) -> Tensor:
    """The convex combination of the two directions with `<N, A> = 0`."""
    rise = high.slope - low.slope
    part = torch.where(rise > 0, high.slope / torch.where(rise > 0, rise, 1.0), 0.5).clamp(0, 1)
    return part * low.direction + (1 - part) * high.direction


def _where_tangents_meet(low: _Trial, high: _Trial) -> Tensor:
    """Where the objective's tangents at the two ends cross: no further from its minimum than they are."""
    rise = high.slope - low.slope
    ahead = low.objective - high.objective
    ahead = ahead + high.slope * high.multiplier - low.slope * low.multiplier
    middle = (low.multiplier + high.multiplier) / 2
    met = torch.where(rise > 0, ahead / torch.where(rise > 0, rise, 1.0), middle)
    return torch.minimum(torch.maximum(met, low.multiplier), high.multiplier)
