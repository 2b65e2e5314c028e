"""The pairs whose steepest direction is one formula."""

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
    """Euclidean space: no constraint, so the norm's own steepest direction.

    Gradient descent (Frobenius), sign descent (Max), Muon (Spectral, RMSOperator), Modula's embedding
    (RowRMS).

    The gap is 0 if the norm's direction is exact. If it is an `msign` by polynomials, the gap is bounded
    without singular values: it is at least the norm's accuracy, and more if many singular values too small for
    the polynomials may carry much of the dual. A gap above the tolerance is NOT_CERTIFIED, as nothing
    here is iterated. A direction by polynomials may be longer than one by the norm's accuracy.

    Args:
        tolerance: on the gap, if the norm's direction is approximate.
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
    """The norm's own steepest direction, and its own bound on the gap."""

    norm: Norm
    shape: tuple[int, ...]
    device_type: str

    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        del point, dual
        direction = self.norm.steepest(gradient)
        gap = self.norm.shortfall(gradient, direction)
        # An approximation that falls short has nothing to iterate.
        shortfall = Status.NOT_CERTIFIED if self.norm.accuracy > 0.0 else Status.NOT_CONVERGED
        return Solution(direction, gap, tolerance=self.tolerance, shortfall=shortfall)

    def __str__(self) -> str:
        how = self.norm.steepest_by(self.shape, self.device_type)
        return f"it takes the norm's own steepest direction, {how}"


@dataclass(frozen=True)
class TangentGradient(Solver):
    """Any manifold with the Frobenius norm: `−P(G)/‖P(G)‖_F`, P the tangent projection.

    The tangent space is a Euclidean one, so the steepest direction is the projected gradient:
    Riemannian gradient descent; on the sphere, hyperspherical descent.
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
    """Oblique or BalancedRows with RowRMS: hyperspherical descent on every row by itself.

    The norm is the largest over rows and the constraint holds row by row, so each row goes its own
    steepest way: `a_i = −√d P_i(g_i)/‖P_i(g_i)‖₂`.
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
    """The steepest direction of the norm for the tangent part of the gradient.

    Args:
        dim: the dimensions that norm and constraint couple: the whole matrix, or each row by itself.
        on_host: whether numbers may be looked at if they can be read.
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
        again = "again if it is short" if self.on_host else "twice, as nothing is read to decide"
        return f"it normalises the tangent part of the gradient {rows}, projected {again}"


def _tangent_part(
    manifold: Manifold,
    point: Tensor,
    unit: Tensor,
    *,
    dim: int | tuple[int, int],
    on_host: bool,
) -> Tensor:
    """The tangent part of vectors of unit length, up to a factor; zero if it is no more than rounding."""
    tangent = manifold.tangent(point, unit)
    size = length(tangent, dim=dim)
    has_tangent_part = torch.logical_not(size <= projection_rounding(tangent))
    short = has_tangent_part & (size < SHORT)
    if on_host:
        if bool(short.any()):
            tangent = _projected_again(manifold, point, tangent, size)
    else:
        tangent = torch.where(short, _projected_again(manifold, point, tangent, size), tangent)
    return torch.where(has_tangent_part, tangent, 0.0)


def _projected_again(manifold: Manifold, point: Tensor, tangent: Tensor, size: Tensor) -> Tensor:
    # Divided by its own length, the rounding of a projection may be as long as what is tangent.
    return manifold.tangent(point, divide_safely(tangent, size))


SHORT = 1e-2
"""A tangent part shorter than this, of a vector of length 1, is projected once more."""
