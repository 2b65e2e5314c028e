"""The row plan of a pair, if it has one."""

from __future__ import annotations

from dataclasses import replace

import torch

from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.euclidean import Euclidean
from modular_manifolds.manifolds.spectral_ball import SpectralBall
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.norms import Norm, RMSOperator, Spectral
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.closed_form import NormSteepest
from modular_manifolds.solvers.floors import MIN_DEEPER_RATIO
from modular_manifolds.solvers.row_sharded.muon import MuonRows
from modular_manifolds.solvers.row_sharded.plan import RowPlan
from modular_manifolds.solvers.row_sharded.stiefel import StiefelRows
from modular_manifolds.solvers.selection import find_solver
from modular_manifolds.solvers.skew_sign import SkewSign, polynomial_plan


def row_plan(
    manifold: Manifold,
    norm: Norm,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device_type: str,
    *,
    dim: int = -2,
    solver: str | Solver = "auto",
) -> RowPlan | None:
    """The plan for weights of which every process holds some rows (columns, if they are wide); None if it has none.

    Stiefel, Euclidean space and the spectral ball have one with the spectral and the RMS operator norm, if `dim` is the
    longer side.

    Args:
        manifold: the pair.
        norm: as `manifold`.
        shape: (*batch, m, n), that of the whole weight.
        dtype: at least float32.
        device_type: of the blocks.
        dim: the dimension of which every process holds a range: -2 or -1.
        solver: as in `steepest`.
    """
    chosen = find_solver(manifold, norm, solver)
    columns = shape[-1 if dim == -2 else -2]
    if type(norm) not in (Spectral, RMSOperator) or shape[dim] < columns:
        return None
    unit, turned = norm.spectral_unit(shape), dim == -1
    if type(manifold) is Stiefel and type(chosen) is SkewSign:
        plan = polynomial_plan(chosen, manifold, unit, shape, dtype, device_type, reduced=True)
        if device_type != "cpu":
            # Every process must use the same plan in the same step, and a gap is read some steps later.
            plan = replace(plan, floor=max(plan.floor / MIN_DEEPER_RATIO, plan.lowest))
        return StiefelRows(chosen.tolerance, unit, columns, turned, manifold.radius, plan)
    if type(chosen) is NormSteepest and type(manifold) in (Euclidean, SpectralBall):
        radius = manifold.radius if isinstance(manifold, SpectralBall) else None
        return MuonRows(chosen.tolerance, unit, columns, turned, dtype, radius)
    return None
