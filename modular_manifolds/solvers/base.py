"""The interface of a solver: it maps (manifold, norm, point, gradient) to a Solution."""

from __future__ import annotations

import operator
from abc import ABC
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from modular_manifolds.arguments import NOT_NEGATIVE, check_count, check_number
from modular_manifolds.linalg.compilers import constant
from modular_manifolds.linalg.surroundings import undisturbed
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.plan import PLANS, Plan, number_of, solve_to_tolerance
from modular_manifolds.solvers.solution import Solution, Status


@dataclass(frozen=True)
class Solver(ABC):
    """A solver of `min <G, A>` subject to `‖A‖ ≤ 1` and A tangent at W, for its pairs in the table.

    Settings are fields. A solver implements `plan`, which makes every choice once, on the host; the plan then computes
    without reading numbers back. A solver whose loop depends on its numbers implements `solve` instead: it waits for an
    accelerator at every read and cannot be compiled there. On the CPU it is one operator of a compiled graph.
    """

    name: ClassVar[str]
    reason: ClassVar[str]
    """The reason why `select` chooses it, as the end of a sentence that starts with its name."""

    half_the_digits: ClassVar[bool] = False
    """Whether directions are tangent, and of at most unit length, only to half the digits of the dtype: in directions
    of tiny singular values of the gradient, rounding is amplified."""

    def __init_subclass__(cls) -> None:
        """Wrap the subclass's `solve`, so that it runs at full precision and without gradients."""
        super().__init_subclass__()
        if "solve" in cls.__dict__:
            cls.solve = undisturbed(cls.solve)

    def __post_init__(self) -> None:
        for field in fields(self):
            argument, value = f"{type(self).__name__}({field.name})", getattr(self, field.name)
            # The type of the default decides which check a setting gets.
            match field.default:
                case bool():
                    continue
                case int():
                    value = check_count(value, argument=argument, what="rounds", least=0)
                case float():
                    remedy = f"Leave it at {field.default:g}."
                    value = check_number(value, NOT_NEGATIVE, argument=argument, remedy=remedy)
            object.__setattr__(self, field.name, value)

    def serves(self, manifold: Manifold, norm: Norm) -> bool:
        """Whether an instance may be passed for this pair although the table does not list it."""
        del manifold, norm
        return False

    def dual_shape(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape of the `dual` in solutions for weights of `shape`; None if the solver has no warm start."""
        del shape
        return None

    def plan(
        self,
        manifold: Manifold,
        norm: Norm,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device_type: str,
    ) -> Plan:
        """The plan for weights of `shape` (*batch, m, n) in `dtype`, at least float32, on a type of device."""
        del shape, dtype, device_type
        if type(self).solve is Solver.solve:
            raise NotImplementedError(f"{type(self).__name__} implements neither plan nor solve")
        return HostPlan(getattr(self, "tolerance", None), self, manifold, norm)

    @undisturbed
    def solve(
        self,
        manifold: Manifold,
        norm: Norm,
        point: Tensor,
        gradient: Tensor,
        dual: Tensor | None,
    ) -> Solution:
        """The steepest direction at `point`; `dual` warm-starts an iterative solver, others ignore it.

        Tensors have shape (*batch, m, n) and at least float32. It runs at full precision, whatever autocast and torch's
        precision settings say, and records no derivatives. The caller owns the direction and may write into it.
        """
        plan = self.plan(manifold, norm, tuple(point.shape), point.dtype, point.device.type)
        return solve_to_tolerance(plan, point, gradient, dual)


def plan_for(
    solver: Solver,
    manifold: Manifold,
    norm: Norm,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device_type: str,
) -> Plan:
    """`solver.plan(…)`; a compiler does not trace the call but takes the plan as a constant."""
    if not torch.compiler.is_compiling():
        return solver.plan(manifold, norm, shape, dtype, device_type)
    sizes = tuple(operator.index(size) for size in shape)
    return PLANS[_number_for(solver, manifold, norm, sizes, dtype, device_type)]


@constant
def _number_for(
    solver: Solver,
    manifold: Manifold,
    norm: Norm,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device_type: str,
) -> int:
    return number_of(solver.plan(manifold, norm, shape, dtype, device_type))


@dataclass(frozen=True)
class HostPlan(Plan):
    """A plan that calls the `solve` of a solver that decides on the host."""

    solver: Solver
    manifold: Manifold
    norm: Norm

    decides_on_host = True

    @property
    def shortfall(self) -> Status:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Status.NOT_CERTIFIED if self.tolerance is None else Status.NOT_CONVERGED

    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        return self.solver.solve(self.manifold, self.norm, point, gradient, dual)

    def __str__(self) -> str:
        return "it decides on the host while it runs, and waits for the device at every decision"
