"""Solvers for pairs whose steepest direction is one formula."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import (
    MATRIX,
    divide_safely,
    length,
    normalise,
    projection_rounding,
    readable,
)
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.solution import Solution, Status


@dataclass(frozen=True)
class NormSteepest(Solver):
    """The norm's own steepest direction, for Euclidean space, which has no constraint.

    This is gradient descent (Frobenius), sign descent (Max), Muon (Spectral, RMSOperator) and Modula's embedding
    (RowRMS).

    The gap is 0 if the norm's direction is exact. If it is an `msign` by polynomials, the gap is bounded
    without singular values: the bound is at least the norm's accuracy, and larger if singular values below the floor
    of the polynomials may carry much of the dual. If the gap exceeds the tolerance, the status is NOT_CERTIFIED,
    because nothing is iterated. The length of a direction by polynomials may exceed 1 by the norm's accuracy.

    Args:
        tolerance: the largest gap of a certified direction, if the norm's direction is approximate.
    """

    tolerance: float = 0.2

    name = "norm-steepest"
    reason = "every direction is tangent, so the norm's own steepest direction is the answer"

    def plan(
        self,
        manifold: Manifold,
        norm: Norm,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device_type: str,
    ) -> Plan:
        del manifold, dtype
        # An exact formula leaves no gap.
        tolerance = self.tolerance if norm.accuracy > 0.0 else 0.0
        return NormSteepestPlan(tolerance, norm, shape, device_type)


@dataclass(frozen=True)
class NormSteepestPlan(Plan):
    """A plan that takes the norm's own steepest direction and the norm's bound on the gap."""

    norm: Norm
    shape: tuple[int, ...]
    device_type: str

    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        del point, dual
        direction = self.norm.steepest(gradient)
        gap = self.norm.shortfall(gradient, direction)
        # There is no iteration that could improve an approximate direction.
        shortfall = Status.NOT_CERTIFIED if self.norm.accuracy > 0.0 else Status.NOT_CONVERGED
        return Solution(direction, gap, tolerance=self.tolerance, shortfall=shortfall)

    def __str__(self) -> str:
        how = self.norm.steepest_by(self.shape, self.device_type)
        return f"it takes the norm's own steepest direction, {how}"


@dataclass(frozen=True)
class TangentGradient(Solver):
    """`−P(G)/‖P(G)‖_F`, P the tangent projection, for any manifold with the Frobenius norm.

    The steepest direction in this norm is the projected gradient. This is Riemannian gradient descent; on the
    sphere, hyperspherical descent.
    """

    name = "tangent-gradient"
    reason = "in the Frobenius norm the projected gradient is the steepest direction"

    def plan(
        self,
        manifold: Manifold,
        norm: Norm,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device_type: str,
    ) -> Plan:
        del shape, dtype
        return TangentPlan(0.0, manifold, norm, MATRIX, device_type == "cpu")


@dataclass(frozen=True)
class RowTangentGradient(Solver):
    """Hyperspherical descent on every row, for Oblique or BalancedRows with RowRMS.

    The norm is the maximum over rows and the constraint holds row by row, so each row has its own
    steepest direction `a_i = −√d P_i(g_i)/‖P_i(g_i)‖₂`.
    """

    name = "row-tangent-gradient"
    reason = "norm and constraint split into rows, each a sphere of its own"

    def plan(
        self,
        manifold: Manifold,
        norm: Norm,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device_type: str,
    ) -> Plan:
        del shape, dtype
        return TangentPlan(0.0, manifold, norm, -1, device_type == "cpu")


@dataclass(frozen=True)
class TangentPlan(Plan):
    """A plan that takes the norm's steepest direction for the tangent part of the gradient.

    Args:
        dim: the dimensions that norm and constraint couple: the whole matrix, or each row.
        on_host: whether the host may read numbers of CPU tensors.
    """

    manifold: Manifold
    norm: Norm
    dim: int | tuple[int, int]
    on_host: bool

    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        del dual
        on_host = self.on_host and readable(point)
        unit = normalise(gradient, dim=self.dim)
        tangent = _tangent_part(self.manifold, point, unit, dim=self.dim, on_host=on_host)
        direction = self.norm.steepest(tangent)
        return Solution(direction, self.norm.shortfall(tangent, direction), tolerance=0.0)

    def __str__(self) -> str:
        rows = "of every row by itself" if self.dim == -1 else "of the whole matrix"
        again = "again if it is short" if self.on_host else "twice, as the host reads no numbers"
        return f"it normalises the tangent part of the gradient {rows}, projected {again}"


def _tangent_part(
    manifold: Manifold,
    point: Tensor,
    unit: Tensor,
    *,
    dim: int | tuple[int, int],
    on_host: bool,
) -> Tensor:
    """The tangent part of vectors of unit length, up to a positive factor; zero if it is rounding error only."""
    tangent = manifold.tangent(point, unit)
    size = length(tangent, dim=dim)
    has_tangent_part = torch.logical_not(size <= projection_rounding(tangent))
    short = has_tangent_part & (size < REPROJECT_MAX_LENGTH)
    if on_host:
        if bool(short.any()):
            tangent = _project_again(manifold, point, tangent, size)
    else:
        tangent = torch.where(short, _project_again(manifold, point, tangent, size), tangent)
    return torch.where(has_tangent_part, tangent, 0.0)


def _project_again(manifold: Manifold, point: Tensor, tangent: Tensor, size: Tensor) -> Tensor:
    # After the division by a small length, the rounding of the first projection can be as long as the tangent part.
    return manifold.tangent(point, divide_safely(tangent, size))


REPROJECT_MAX_LENGTH = 1e-2
"""The length of the tangent part of a unit vector below which it is projected a second time."""
