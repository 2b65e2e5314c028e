"""The whole manifold × norm table, and which solver would be used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError, ShapeError, UnsupportedPairError
from modular_manifolds.linalg.matrices import as_matrices, restore
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.euclidean import Euclidean
from modular_manifolds.manifolds.oblique import Oblique
from modular_manifolds.manifolds.sphere import Sphere
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.norms.base import Norm
from modular_manifolds.norms.frobenius import Frobenius
from modular_manifolds.norms.max import Max
from modular_manifolds.norms.rms_operator import RMSOperator
from modular_manifolds.norms.row_rms import RowRMS
from modular_manifolds.norms.spectral import Spectral
from modular_manifolds.solvers.admm import ADMM
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.closed_form import NormSteepest, RowTangentGradient, TangentGradient
from modular_manifolds.solvers.dual_ascent import DualAscent
from modular_manifolds.solvers.lyapunov import Lyapunov
from modular_manifolds.solvers.solution import Solution
from modular_manifolds.solvers.spel import SPEL

TABLE: Final[dict[tuple[type[Manifold], type[Norm]], tuple[Solver, ...]]] = {
    (Euclidean, Frobenius): (NormSteepest(),),  # normalised gradient descent
    (Euclidean, Max): (NormSteepest(),),  # sign descent
    (Euclidean, Spectral): (NormSteepest(),),  # Muon
    (Euclidean, RMSOperator): (NormSteepest(),),  # Muon, aware of the width
    (Euclidean, RowRMS): (NormSteepest(),),  # Modula's embedding
    (Sphere, Frobenius): (TangentGradient(),),  # hyperspherical descent
    (Oblique, Frobenius): (TangentGradient(),),  # Riemannian gradient descent
    (Oblique, RowRMS): (RowTangentGradient(),),  # forced weight normalisation
    (Stiefel, Frobenius): (TangentGradient(),),  # Riemannian gradient descent
    (Stiefel, Spectral): (Lyapunov(), DualAscent(), ADMM(), SPEL()),  # manifold Muon
    # Manifold Muon, aware of the width.
    (Stiefel, RMSOperator): (Lyapunov(), DualAscent(), ADMM(), SPEL()),
}
"""The solvers of each pair, the default first. A new pair is one row here."""


@dataclass(frozen=True)
class Choice:
    """Which solver `select` takes, and why; `print` it to read it."""

    manifold: Manifold
    norm: Norm
    solver: Solver
    others: tuple[str, ...]

    def __str__(self) -> str:
        also = f" Also available: {', '.join(self.others)}." if self.others else ""
        return f"{self.manifold} × {self.norm}: {self.solver.name}, because {self.solver.reason}.{also}"


def select(
    manifold: Manifold,
    norm: Norm,
    shape: tuple[int, ...] | None = None,
    device: torch.device | str = "cpu",
) -> Choice:
    """Answer "which solver would you use, and why?".

    Args:
        manifold, norm: the pair.
        shape: the weight's shape; refused where the manifold has no such points.
        device: where the weight lives. Today every pair has one default on all devices.

    Raises:
        UnsupportedPairError: no solver is known for the pair; the message lists those that are.
    """
    del device
    if shape is not None:
        manifold.check_shape(shape)
    solvers = _solvers(manifold, norm)
    return Choice(manifold, norm, solvers[0], tuple(solver.name for solver in solvers[1:]))


def steepest(
    manifold: Manifold,
    norm: Norm,
    point: Tensor,
    gradient: Tensor,
    *,
    solver: str | Solver = "auto",
    dual: Tensor | None = None,
) -> Solution:
    """The tangent direction of unit length that goes furthest downhill.

    `argmin <G, A>` subject to `‖A‖ ≤ 1` and A tangent to `manifold` at `point`.

    Args:
        point: W on the manifold, shape (*batch, m, n) or (n,).
        gradient: G, the same shape.
        solver: `"auto"`, a solver's name, or a `Solver` with settings of your own.
        dual: the `dual` of an earlier Solution, to start from; a closed form ignores it.

    Returns:
        A Solution; its `status` says whether the direction is certified, its `gap` how well.

    Raises:
        UnsupportedPairError: no solver is known for the pair. ShapeError: the shapes differ.
    """
    if point.shape != gradient.shape:
        raise ShapeError(
            "steepest(gradient)",
            f"must have the shape of the point, {tuple(point.shape)}",
            tuple(gradient.shape),
            "Pass the gradient of the weight at `point`.",
        )
    manifold.check_shape(point.shape, argument="steepest(point)")
    w = as_matrices(point, argument="steepest(point)")
    g = as_matrices(gradient, argument="steepest(gradient)").to(w.dtype)
    found = find_solver(manifold, norm, solver).solve(manifold, norm, w, g, dual)
    direction = restore(found.direction, point)
    return replace(found, direction=direction)


def find_solver(manifold: Manifold, norm: Norm, solver: str | Solver = "auto") -> Solver:
    """The solver that `solver` names for this pair, or `solver` itself if it is one."""
    solvers = _solvers(manifold, norm)
    if solver == "auto":
        return solvers[0]
    names = [each.name for each in solvers]
    if isinstance(solver, Solver):
        if solver.name in names:
            return solver
    elif solver in names:
        return solvers[names.index(solver)]
    raise ArgumentError(
        "solver",
        f"must be 'auto' or one of {', '.join(names)} for {manifold} × {norm}",
        repr(solver if isinstance(solver, str) else solver.name),
        "Leave it at 'auto'.",
    )


def _solvers(manifold: Manifold, norm: Norm) -> tuple[Solver, ...]:
    solvers = TABLE.get((type(manifold), type(norm)))
    if solvers is None:
        listed = ", ".join(f"{m.__name__} × {n.__name__}" for m, n in TABLE)
        raise UnsupportedPairError(
            "manifold × norm",
            "must be a pair with a solver",
            f"{manifold} × {norm}",
            f"Use one of {listed}.",
        )
    return solvers
