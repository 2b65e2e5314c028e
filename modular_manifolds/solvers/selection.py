"""The public functions on the table of pairs: `select`, `steepest` and `find_solver`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError, ShapeError
from modular_manifolds.linalg.matrices import as_matrices, restore
from modular_manifolds.linalg.surroundings import undisturbed
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.base import Solver, plan_for
from modular_manifolds.solvers.plan import Plan, carry_out
from modular_manifolds.solvers.solution import Solution
from modular_manifolds.solvers.table import find_pair
from modular_manifolds.tables import Printable, Table


@dataclass(frozen=True)
class Choice(Printable):
    """The solver that `select` chose, the reason, and its plan; `print` it to read it.

    Args:
        others: names of the pair's other solvers.
        place: the shape and the device of the plan, in words.
        plan: the solver's plan for them; None if `select` was called without a shape.
    """

    manifold: Manifold
    norm: Norm
    solver: Solver
    others: tuple[str, ...] = ()
    place: str = ""
    plan: Plan | None = None

    def printed(self) -> list[Table | str]:
        """The solver and the reason, the plan, and the other solvers, in one paragraph."""
        sentences = [
            f"{self.manifold} × {self.norm}: {self.solver.name}, because {self.solver.reason}."
        ]
        if self.plan is not None:
            sentences.append(f"Plan for {self.place}: {self.plan}.")
        if self.others:
            sentences.append(f"Also available: {', '.join(self.others)}.")
        return [" ".join(sentences)]


def select(
    manifold: Manifold,
    norm: Norm,
    shape: tuple[int, ...] | None = None,
    device: torch.device | str = "cpu",
) -> Choice:
    """The default solver of a pair, the reason for it, and how it computes for a shape and device.

    Every pair has one default solver for all shapes and devices. Its plan depends on the shape and the device: whether
    a small matrix is decomposed, whether products are in bfloat16, whether kernels run.

    Args:
        manifold: the pair.
        norm: as `manifold`.
        shape: the weight's shape, (*batch, m, n) or (n,); if None, the choice has no plan.
        device: the weight's device.

    Raises:
        UnsupportedPairError: no solver is known for the pair; the message lists the pairs that have
            one.
        ShapeError: the manifold has no points of this shape.
        ArgumentError: torch does not know the device.
    """
    device_type = _device_type(device)
    pair = find_pair(manifold, norm)
    solver, *others = pair.solvers
    choice = Choice(manifold, norm, solver, tuple(each.name for each in others))
    if shape is None:
        return choice
    manifold.check_shape(shape)
    matrices = tuple(shape) if len(shape) > 1 else (*shape, 1)
    place = f"{'×'.join(map(str, matrices))} in float32 on {device_type}"
    plan = solver.plan(manifold, norm, matrices, torch.float32, device_type)
    return replace(choice, place=place, plan=plan)


def steepest(
    manifold: Manifold,
    norm: Norm,
    point: Tensor,
    gradient: Tensor,
    *,
    solver: str | Solver = "auto",
    dual: Tensor | None = None,
) -> Solution:
    """The steepest descent direction: `argmin <G, A>` subject to `‖A‖ ≤ 1` and A tangent to `manifold` at `point`.

    Finite arguments give a finite direction and gap. The point must be on the manifold. For a point off it, the
    direction is that of a point close to it, still of at most unit length. A Stiefel point that is off by no more than
    rounding to bfloat16 is used as it is, and the direction may have length 1.03. No derivative is recorded.

    Args:
        point: W on the manifold, shape (*batch, m, n) or (n,).
        gradient: G, the same shape. If the dtypes differ, the solve is in the wider one.
        solver: `"auto"`, a solver's name, or a `Solver` with your own settings.
        dual: the `dual` of an earlier Solution, as a warm start; a closed form ignores it.

    Returns:
        A Solution; `status` says whether the direction is certified, and `gap` is its relative duality gap.

    Raises:
        UnsupportedPairError: no solver is known for the pair.
        ShapeError: the shapes differ.
        NonFiniteError: the gradient or the point holds NaN or infinity, and the solver decomposes
            it; other solvers return NaN with a status other than CONVERGED.
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
    dual_shape = None if dual is None else chosen.dual_shape(tuple(w.shape))
    if dual is not None and dual_shape is not None and tuple(dual.shape) != dual_shape:
        raise ShapeError(
            "steepest(dual)",
            f"must have the shape {dual_shape} for {chosen.name}",
            tuple(dual.shape),
            "Pass the dual of a Solution for the same weight by the same solver, or leave it out.",
        )
    plan = plan_for(chosen, manifold, norm, tuple(w.shape), w.dtype, w.device.type)
    solution = _carry_out(plan, w, g, dual)
    direction = restore(solution.direction, point)
    return solution if direction is solution.direction else replace(solution, direction=direction)


_carry_out = undisturbed(carry_out)


def find_solver(manifold: Manifold, norm: Norm, solver: str | Solver = "auto") -> Solver:
    """The solver of this pair with the name `solver`, or `solver` itself if it is a `Solver`.

    Raises:
        UnsupportedPairError: no solver is known for the pair.
        ArgumentError: the pair has no solver of this name.
    """
    pair = find_pair(manifold, norm)
    if solver == "auto":
        return pair.solvers[0]
    if not isinstance(solver, Solver):
        return pair.solver(solver)
    if not solver.serves(manifold, norm):
        pair.solver(solver.name)
    return solver


def _device_type(device: torch.device | str) -> str:
    try:
        return torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(
            "select(device)",
            "must be a device that torch knows",
            repr(device),
            "Pass 'cpu' or 'cuda', or leave it out.",
        ) from error
