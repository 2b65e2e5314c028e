"""What a solver is: a named, frozen way from (manifold, norm, point, gradient) to a Solution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.solution import Solution


@dataclass(frozen=True)
class Solver(ABC):
    """Solves `min <G, A>` subject to `‖A‖ ≤ 1` and A tangent at W, for the pairs it is listed with.

    Settings are fields. `solve` sees matrices in at least float32, of shape (*batch, m, n).
    """

    name: ClassVar[str]
    reason: ClassVar[str]
    """Why `select` would take it, as the end of a sentence that starts with its name."""

    half_the_digits: ClassVar[bool] = False
    """Whether directions are tangent and of at most unit length to half the digits of the dtype only, not to
    rounding: where what a gradient hardly has is magnified."""

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
