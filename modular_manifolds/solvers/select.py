"""The whole manifold × norm table, and which solver would be used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError, ShapeError, UnsupportedPairError
from modular_manifolds.linalg.matrices import as_matrices, restore
from modular_manifolds.manifolds.balanced_rows import BalancedRows
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.euclidean import Euclidean
from modular_manifolds.manifolds.oblique import Oblique
from modular_manifolds.manifolds.spectral_ball import SpectralBall
from modular_manifolds.manifolds.spectral_sphere import SpectralSphere
from modular_manifolds.manifolds.sphere import Sphere
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.norms.base import Norm
from modular_manifolds.norms.frobenius import Frobenius
from modular_manifolds.norms.max import Max
from modular_manifolds.norms.rms_operator import RMSOperator
from modular_manifolds.norms.row_rms import RowRMS
from modular_manifolds.norms.spectral import Spectral
from modular_manifolds.solvers.admm import ADMM
from modular_manifolds.solvers.base import Solver, plan_for
from modular_manifolds.solvers.closed_form import NormSteepest, RowTangentGradient, TangentGradient
from modular_manifolds.solvers.dual_ascent import DualAscent
from modular_manifolds.solvers.lyapunov import Lyapunov
from modular_manifolds.solvers.lyapunov_products import LyapunovProducts
from modular_manifolds.solvers.plan import carry_out
from modular_manifolds.solvers.skew_sign import SkewSign
from modular_manifolds.solvers.solution import Solution
from modular_manifolds.solvers.spectral_sphere import SpectralSphereDual
from modular_manifolds.solvers.spel import SPEL
from modular_manifolds.solvers.weighted_median import WeightedMedian

MANIFOLD_MUON: Final = (
    SkewSign(),
    Lyapunov(),
    LyapunovProducts(),
    DualAscent(),
    ADMM(),
    SPEL(),
)

TABLE: Final[dict[tuple[type[Manifold], type[Norm]], tuple[Solver, ...]]] = {
    (Euclidean, Frobenius): (NormSteepest(),),  # normalised gradient descent
    (Euclidean, Max): (NormSteepest(),),  # sign descent
    (Euclidean, Spectral): (NormSteepest(),),  # Muon
    (Euclidean, RMSOperator): (NormSteepest(),),  # Muon, aware of the width
    (Euclidean, RowRMS): (NormSteepest(),),  # Modula's embedding
    (Sphere, Frobenius): (TangentGradient(),),  # hyperspherical descent
    (Sphere, Max): (WeightedMedian(),),  # the non-Riemannian sphere
    (Oblique, Frobenius): (TangentGradient(),),  # Riemannian gradient descent
    (Oblique, RowRMS): (RowTangentGradient(),),  # forced weight normalisation
    (BalancedRows, Frobenius): (TangentGradient(),),  # Riemannian gradient descent
    (BalancedRows, RowRMS): (RowTangentGradient(),),  # weight standardisation, Nero
    (Stiefel, Frobenius): (TangentGradient(),),  # Riemannian gradient descent
    (Stiefel, Spectral): MANIFOLD_MUON,
    (Stiefel, RMSOperator): MANIFOLD_MUON,  # aware of the width
    (SpectralBall, Frobenius): (NormSteepest(),),  # gradient descent, capped
    (SpectralBall, Spectral): (NormSteepest(),),  # spectral normalisation: Muon, capped
    (SpectralBall, RMSOperator): (NormSteepest(),),  # the same, aware of the width
    (SpectralSphere, Frobenius): (TangentGradient(),),  # Riemannian gradient descent
    (SpectralSphere, Spectral): (SpectralSphereDual(),),  # Muon beside the top singular pair
    (SpectralSphere, RMSOperator): (SpectralSphereDual(),),  # the same, aware of the width
}
"""The solvers of each pair, its default first. A new pair is one row here."""


@dataclass(frozen=True)
class Choice:
    """The solver that `select` takes, and why; `print` it to read it."""

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

    Every pair has one default, which serves weights of all shapes on all devices. So neither `shape` nor `device` changes
    the answer. How the solver computes may depend on both: whether a small matrix is decomposed, whether products are
    in bfloat16, whether kernels run. Its page says so; `select` does not.

    Args:
        manifold, norm: the pair.
        shape: the weight's shape, checked only: the manifold must have such points.
        device: the weight's device, checked only: torch must know such a device.

    Raises:
        UnsupportedPairError: no solver is known for the pair; the message lists those that are. ShapeError: the
        manifold has no points of this shape. ArgumentError: torch knows no such device.
    """
    _check_device(device)
    if shape is not None:
        manifold.check_shape(shape)
    first, *others = _solvers(manifold, norm)
    return Choice(manifold, norm, first, tuple(solver.name for solver in others))


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

    Finite arguments give a finite direction and gap. A point off its manifold is the caller's mistake: the direction is
    then one for a point near it, and still of at most unit length. Only a point of Stiefel that is off by rounding to
    bfloat16 or a little more is taken as it is; the direction may be 1.03 long there. Nothing is differentiated.

    Args:
        point: W on the manifold, shape (*batch, m, n) or (n,).
        gradient: G, the same shape. If the dtypes differ, the work is done in the wider one.
        solver: `"auto"`, a solver's name, or a `Solver` with settings of your own.
        dual: the `dual` of an earlier Solution, to start from; a closed form ignores it.

    Returns:
        A Solution; its `status` says whether the direction is certified, its `gap` how well.

    Raises:
        UnsupportedPairError: no solver is known for the pair. ShapeError: the shapes differ. NonFiniteError: the
        gradient or the point holds NaN or infinity, and the solver decomposes it; the others give NaN, and a status
        that is not CONVERGED.
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
    g = as_matrices(gradient, argument="steepest(gradient)")
    if w.dtype is not g.dtype:
        w, g = w.double(), g.double()
    chosen = find_solver(manifold, norm, solver)
    wanted = None if dual is None else chosen.dual_shape(tuple(w.shape))
    if dual is not None and wanted is not None and tuple(dual.shape) != wanted:
        raise ShapeError(
            "steepest(dual)",
            f"must have the shape {wanted} for {chosen.name}",
            tuple(dual.shape),
            "Pass the dual of a Solution for the same weight by the same solver, or leave it out.",
        )
    plan = plan_for(chosen, manifold, norm, tuple(w.shape), w.dtype, w.device.type)
    found = carry_out(plan, w, g, dual)
    direction = restore(found.direction, point)
    return found if direction is found.direction else replace(found, direction=direction)


def find_solver(manifold: Manifold, norm: Norm, solver: str | Solver = "auto") -> Solver:
    """The solver that `solver` names for this pair, or `solver` itself if it is one.

    Raises:
        UnsupportedPairError: no solver is known for the pair. ArgumentError: the solver named is not one of
        the pair's.
    """
    solvers = _solvers(manifold, norm)
    if solver == "auto":
        return solvers[0]
    given = solver.name if isinstance(solver, Solver) else solver
    found = next((each for each in solvers if each.name == given), None)
    if found is None:
        names = ", ".join(each.name for each in solvers)
        raise ArgumentError(
            "solver",
            f"must be 'auto' or one of {names} for {manifold} × {norm}",
            repr(given),
            "Leave it at 'auto'.",
        )
    return solver if isinstance(solver, Solver) else found


def _check_device(device: torch.device | str) -> None:
    try:
        torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(
            "select(device)",
            "must name a device that torch knows",
            repr(device),
            "Pass 'cpu' or 'cuda', or leave it out: the choice is the same on all devices.",
        ) from error


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
