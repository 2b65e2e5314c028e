"""A plan: every choice of a solve, made on the host before any tensor is touched."""

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
    """How a solver computes the direction of weights of one shape on one kind of device; `print` it to read it.

    A plan is made from shapes, dtypes, the device's type and settings alone. It is immutable, and equal choices make
    equal plans. `solve` sees matrices in at least float32, of shape (*batch, m, n); it runs inside
    `linalg.surroundings.undisturbed`, which the optimiser, `mm.steepest` and `Solver.solve` enter.
    """

    tolerance: float | None
    """The relative duality gap that the plan is made for; None if the solver stops by another rule."""

    decides_on_host: ClassVar[bool] = False
    """Whether `solve` reads numbers of tensors in the host's memory, or has deeper plans; its graph then is one operator."""

    gap_dtype: ClassVar[torch.dtype | None] = None
    """The dtype of the gap; that of the point if None."""

    shortfall: ClassVar[Status] = Status.NOT_CONVERGED
    """The status if the gap is above the tolerance."""

    @property
    def dual_shape(self) -> tuple[int, ...] | None:
        """The shape of the solution's dual, which is in float64; None if there is none."""
        return None

    @abstractmethod
    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        """The steepest direction at `point`; `dual` warm-starts an iterative solver, others ignore it.

        No number is read on the host and no branch depends on data, so a device is never waited for, unless the plan
        says that it decides on the host. The direction is the caller's, who may write into it.
        """

    def deeper(self, gap: float | None = None) -> Plan | None:
        """A plan with a smaller gap for more work; None if there is none.

        Args:
            gap: the worst gap that this plan left, if it is known: how much deeper to go.
        """
        del gap
        return None

    @abstractmethod
    def __str__(self) -> str:
        """The plan in words, as a sentence without its full stop."""


def insist(plan: Plan, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
    """Solve, read the gap, and go on with deeper plans until the gap is within the tolerance or no plan is deeper.

    For tensors in the host's memory: on a device every look at the gap would wait.
    """
    found = plan.solve(point, gradient, dual)
    # Most plans have nothing deeper, and then the gap need not be read.
    while type(plan).deeper is not Plan.deeper:
        gap = float(found.gap.max())
        following = None if gap <= (plan.tolerance or 0.0) else plan.deeper(gap)
        if following is None:
            break
        plan = following
        found = plan.solve(point, gradient, dual)
    return found


def carry_out(plan: Plan, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
    """Solve by the plan, and insist on its tolerance if numbers can be read without waiting for a device.

    In a compiled graph a solve in the host's memory is one operator, which decides as it would outside of the graph.
    """
    if readable(point):
        return insist(plan, point, gradient, dual)
    if not (plan.decides_on_host and compiled_on_host(point)):
        return plan.solve(point, gradient, dual)
    direction, gap, after, iterations = _insist(point, gradient, dual, number_of(plan))
    return Solution(
        direction,
        gap,
        iterations,
        plan.tolerance,
        None if plan.dual_shape is None else after,
        plan.shortfall,
    )


PLANS: Final[list[Plan]] = []
"""Every plan that a compiled graph knows by its number."""


@constant
def number_of(plan: Plan) -> int:
    """The place of the plan in `PLANS`. Equal plans have one number."""
    return number_in(PLANS, plan)


@torch.library.custom_op("modular_manifolds::insist", mutates_args=())
def _insist(
    point: Tensor, gradient: Tensor, dual: Tensor | None, number: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`insist` by the plan with this number: direction, gap, dual (empty if there is none) and iterations."""
    found = undisturbed(insist)(PLANS[number], point, gradient, dual)
    after = point.new_empty(0) if found.dual is None else found.dual.clone()
    iterations = torch.tensor(int(found.iterations), device=point.device)
    return found.direction.contiguous(), found.gap.contiguous(), after, iterations


@_insist.register_fake
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
