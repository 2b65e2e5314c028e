"""A plan: all choices of a solve, made on the host before any tensor is computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor

from modular_manifolds.linalg.compilers import constant, number_in
from modular_manifolds.linalg.matrices import compiled_on_host, readable
from modular_manifolds.linalg.surroundings import undisturbed
from modular_manifolds.solvers.solution import Solution, Status


@dataclass(frozen=True)
class Plan(ABC):
    """The method by which a solver computes directions for one shape on one type of device; `print` it to read it.

    A plan depends on shapes, dtypes, the device's type and settings only. It is immutable, and equal choices make
    equal plans. `solve` gets matrices of shape (*batch, m, n) in at least float32; it runs inside
    `linalg.surroundings.undisturbed`, which the optimiser, `mm.steepest` and `Solver.solve` enter.
    """

    tolerance: float | None
    """The relative duality gap that the plan aims for; None if the solver stops by another rule."""

    decides_on_host: ClassVar[bool] = False
    """Whether `solve` reads numbers of CPU tensors, or the plan has deeper plans. A compiled graph then has one operator
    for it."""

    gap_dtype: ClassVar[torch.dtype | None] = None
    """The dtype of the gap; None for the dtype of the point."""

    shortfall: ClassVar[Status] = Status.NOT_CONVERGED
    """The status if the gap is above the tolerance."""

    @property
    def dual_shape(self) -> tuple[int, ...] | None:
        """The shape of the solution's dual, which is in float64; None if there is none."""
        return None

    @abstractmethod
    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        """The steepest direction at `point`; `dual` warm-starts an iterative solver, others ignore it.

        Unless `decides_on_host` is set, nothing is read on the host and no branch depends on data, so the host never
        waits for the device. The caller owns the direction and may write into it.
        """

    def deeper(self, gap: float | None = None) -> Plan | None:
        """A plan with a smaller gap for more work; None if there is none.

        Args:
            gap: the largest gap of this plan's solution, if known; it decides how much deeper the next plan is.
        """
        del gap
        return None

    @abstractmethod
    def __str__(self) -> str:
        """The plan in words, as a sentence without its full stop."""


def solve_to_tolerance(
    plan: Plan, point: Tensor, gradient: Tensor, dual: Tensor | None = None
) -> Solution:
    """Solve, read the gap, and repeat with deeper plans until the gap is within the tolerance or no plan is deeper.

    Use it for CPU tensors: on an accelerator every read of the gap would wait.
    """
    solution = plan.solve(point, gradient, dual)
    # Most plans have no deeper plan; the gap is not read then.
    while type(plan).deeper is not Plan.deeper:
        gap = float(solution.gap.max())
        deeper = None if gap <= (plan.tolerance or 0.0) else plan.deeper(gap)
        if deeper is None:
            break
        plan = deeper
        solution = plan.solve(point, gradient, dual)
    return solution


def carry_out(plan: Plan, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
    """Solve by the plan; on the CPU, to its tolerance, because reading the gap there does not wait.

    In a compiled graph a CPU solve is one operator with the same result as in eager mode.
    """
    if readable(point):
        return solve_to_tolerance(plan, point, gradient, dual)
    if not (plan.decides_on_host and compiled_on_host(point)):
        return plan.solve(point, gradient, dual)
    direction, gap, new_dual, iterations = _solve_as_operator(
        point, gradient, dual, number_of(plan)
    )
    return Solution(
        direction,
        gap,
        iterations,
        plan.tolerance,
        None if plan.dual_shape is None else new_dual,
        plan.shortfall,
    )


PLANS: Final[list[Plan]] = []
"""Every plan in use by a compiled graph, which refers to it by its index."""


@constant
def number_of(plan: Plan) -> int:
    """The index of the plan in `PLANS`. Equal plans have one index."""
    return number_in(PLANS, plan)


@torch.library.custom_op("modular_manifolds::solve_to_tolerance", mutates_args=())
def _solve_as_operator(
    point: Tensor, gradient: Tensor, dual: Tensor | None, number: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`solve_to_tolerance` by the plan with this number: direction, gap, dual (empty if there is none) and iterations."""
    solution = undisturbed(solve_to_tolerance)(PLANS[number], point, gradient, dual)
    new_dual = point.new_empty(0) if solution.dual is None else solution.dual.clone()
    iterations = torch.tensor(int(solution.iterations), device=point.device)
    return solution.direction.contiguous(), solution.gap.contiguous(), new_dual, iterations


@_solve_as_operator.register_fake
def _(
    point: Tensor, gradient: Tensor, dual: Tensor | None, number: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    del gradient, dual
    plan = PLANS[number]
    direction = torch.empty_like(point, memory_format=torch.contiguous_format)
    gap = point.new_empty(point.shape[:-2], dtype=plan.gap_dtype)
    shape = (0,) if plan.dual_shape is None else plan.dual_shape
    after = point.new_empty(shape, dtype=point.dtype if plan.dual_shape is None else torch.float64)
    return direction, gap, after, torch.empty((), dtype=torch.int64, device=point.device)
