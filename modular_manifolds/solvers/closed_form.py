"""The pairs whose steepest direction is one formula."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX, inner, more_than_rounding, near_one, normalise
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.norms.rms_operator import RMSOperator, unit
from modular_manifolds.norms.spectral import MSIGN_FLOOR, Spectral, msign_accuracy
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.msign_gap import msign_gap
from modular_manifolds.solvers.solution import Solution, Status, relative_gap


@dataclass(frozen=True)
class NormSteepest(Solver):
    """Euclidean space: no constraint, so the norm's own steepest direction.

    Gradient descent (Frobenius), sign descent (Max), Muon (Spectral, RMSOperator), Modula's embedding
    (RowRMS).

    The gap is 0 where the norm's direction is exact. Where it is an `msign` by polynomials, the gap is bounded
    without singular values: it is at least the norm's accuracy, and more where many singular values too small for
    the polynomials may carry much of the dual. What this leaves above the tolerance is NOT_CERTIFIED, as nothing
    here is iterated. A direction by polynomials may be longer than one by the norm's accuracy.

    Args:
        tolerance: on the gap, where the norm's direction is approximate.
    """

    tolerance: float = 0.2

    name = "norm-steepest"
    reason = "every direction is tangent, so the norm's own steepest direction is the answer"

    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        del manifold, point, dual
        direction = norm.steepest(gradient)
        if norm.accuracy == 0.0:
            return _exact(direction)
        if isinstance(norm, Spectral | RMSOperator):
            length = unit(gradient) if isinstance(norm, RMSOperator) else 1.0
            accuracy = msign_accuracy(gradient.shape)
            gap = msign_gap(gradient, direction, accuracy=accuracy, floor=MSIGN_FLOOR, unit=length)
        else:
            g = near_one(gradient)
            gap = relative_gap(-inner(g, direction), norm.dual(g)[..., None, None])
        within = bool((gap <= self.tolerance).all())
        status = Status.CONVERGED if within else Status.NOT_CERTIFIED
        return Solution(direction, status, 0, gap, self.tolerance)


@dataclass(frozen=True)
class TangentGradient(Solver):
    """Any manifold with the Frobenius norm: `−P(G)/‖P(G)‖_F`, P the tangent projection.

    The tangent space is a Euclidean one, so the steepest direction is the projected gradient:
    Riemannian gradient descent; on the sphere, hyperspherical descent.
    """

    name = "tangent-gradient"
    reason = "in the Frobenius norm the projected gradient is the steepest direction"

    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        del norm, dual
        tangent = manifold.tangent(point, normalise(gradient, dim=MATRIX))
        there = more_than_rounding(tangent, dim=MATRIX)
        return _exact(torch.where(there, -normalise(tangent, dim=MATRIX), 0.0))


@dataclass(frozen=True)
class RowTangentGradient(Solver):
    """Oblique or BalancedRows with RowRMS: hyperspherical descent on every row by itself.

    The norm is the largest over rows and the constraint holds row by row, so each row goes its own
    steepest way: `a_i = −√d P_i(g_i)/‖P_i(g_i)‖₂`.
    """

    name = "row-tangent-gradient"
    reason = "norm and constraint split into rows, each a sphere of its own"

    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        del dual
        tangent = manifold.tangent(point, normalise(gradient, dim=-1))
        there = more_than_rounding(tangent, dim=-1)
        return _exact(torch.where(there, norm.steepest(tangent), 0.0))


def _exact(direction: Tensor) -> Solution:
    # Zero, and NaN where the direction holds one: a direction has entries of moderate size.
    gap = direction.sum(dim=MATRIX) * 0
    status = Status.NOT_CONVERGED if bool(gap.isnan().any()) else Status.CONVERGED
    return Solution(direction, status, 0, gap, tolerance=0.0)
