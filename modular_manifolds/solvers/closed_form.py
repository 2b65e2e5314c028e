"""The pairs whose steepest direction is one formula."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import (
    MATRIX,
    divide_safely,
    inner,
    length,
    near_one,
    normalise,
    projection_rounding,
)
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
            long = unit(gradient) if isinstance(norm, RMSOperator) else 1.0
            accuracy = msign_accuracy(gradient.shape)
            gap = msign_gap(gradient, direction, accuracy=accuracy, floor=MSIGN_FLOOR, unit=long)
        else:
            g = near_one(gradient)
            gap = relative_gap(-inner(g, direction), norm.dual(g)[..., None, None])
        return Solution(direction, gap, tolerance=self.tolerance, shortfall=Status.NOT_CERTIFIED)


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
        tangent = _tangent_part(manifold, point, normalise(gradient, dim=MATRIX), dim=MATRIX)
        return _exact(-normalise(tangent, dim=MATRIX))


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
        tangent = _tangent_part(manifold, point, normalise(gradient, dim=-1), dim=-1)
        return _exact(norm.steepest(tangent))


def _tangent_part(
    manifold: Manifold, point: Tensor, unit: Tensor, *, dim: int | tuple[int, int]
) -> Tensor:
    """The tangent part of vectors of unit length, up to a factor; zero if it is no more than rounding."""
    tangent = manifold.tangent(point, unit)
    size = length(tangent, dim=dim)
    there = ~(size <= projection_rounding(tangent))
    if bool((there & (size < SHORT)).any()):
        # Divided by its own length, the rounding of a projection may be as long as what is tangent.
        tangent = manifold.tangent(point, divide_safely(tangent, size))
    return torch.where(there, tangent, 0.0)


SHORT = 1e-2
"""A tangent part shorter than this, of a vector of length 1, is projected once more."""


def _exact(direction: Tensor) -> Solution:
    # Zero, and NaN where the direction holds one: a direction has entries of moderate size.
    gap = direction.sum(dim=MATRIX) * 0
    return Solution(direction, gap, tolerance=0.0)
