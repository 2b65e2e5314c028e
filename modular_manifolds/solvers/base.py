"""The interface of a solver: a named, frozen way from (manifold, norm, point, gradient) to a Solution."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from modular_manifolds.arguments import NOT_NEGATIVE, check_count, check_number
from modular_manifolds.linalg.surroundings import full_precision
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.solution import Solution


@dataclass(frozen=True)
class Solver(ABC):
    """Solves `min <G, A>` subject to `‖A‖ ≤ 1` and A tangent at W, for the pairs it is listed with.

    Settings are fields. `solve` sees matrices in at least float32, of shape (*batch, m, n). It runs at full precision,
    whatever autocast and torch's precision settings say, and records no derivatives.
    """

    name: ClassVar[str]
    reason: ClassVar[str]
    """Why `select` would take it, as the end of a sentence that starts with its name."""

    half_the_digits: ClassVar[bool] = False
    """Whether directions are tangent and of at most unit length to half the digits of the dtype only, not to
    rounding: where what a gradient hardly has is magnified."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "solve" in cls.__dict__:
            cls.solve = _undisturbed(cls.solve)

    def __post_init__(self) -> None:
        for field in fields(self):
            argument, value = f"{type(self).__name__}({field.name})", getattr(self, field.name)
            # Settings are told apart by their defaults.
            match field.default:
                case bool():
                    continue
                case int():
                    value = check_count(value, argument=argument, what="rounds", least=0)
                case float():
                    remedy = f"Leave it at {field.default:g}."
                    value = check_number(value, NOT_NEGATIVE, argument=argument, remedy=remedy)
            object.__setattr__(self, field.name, value)

    def dual_shape(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape of the `dual` in solutions for weights of `shape`; None if the solver has none to start from."""
        del shape
        return None

    @abstractmethod
    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        """The steepest direction at `point`; `dual` warm-starts an iterative solver, others ignore it.

        The direction is the caller's, who may write into it.
        """


def _undisturbed(solve: Callable[..., Solution]) -> Callable[..., Solution]:
    """`solve` without autocast, reduced precision or recorded derivatives, whoever calls it."""

    @functools.wraps(solve)
    def solve_undisturbed(
        self: Solver, manifold: Manifold, norm: Norm, point: Tensor, *rest: Any, **named: Any
    ) -> Solution:
        if torch.is_grad_enabled():
            with torch.no_grad():
                return solve_undisturbed(self, manifold, norm, point, *rest, **named)
        with full_precision(point.device.type):
            return solve(self, manifold, norm, point, *rest, **named)

    return solve_undisturbed
