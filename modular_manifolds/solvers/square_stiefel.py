"""Manifold Muon where the weight is square: a closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.errors import UnsupportedPairError
from modular_manifolds.linalg.backend import half_is_fast
from modular_manifolds.linalg.gram_newton_schulz import gram_iterate
from modular_manifolds.linalg.matrices import MATRIX, inner, near_one, projection_rounding
from modular_manifolds.linalg.newton_schulz import (
    lost_below,
    nearly_orthogonal_to_orthogonal,
    schedule,
)
from modular_manifolds.linalg.symmetric import skew
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.solution import Solution, Status


@dataclass(frozen=True)
class SquareStiefel(Solver):
    """`A = −W msign(K)` with `K = skew(WᵀG)`: every direction at a square W is W times a skew matrix.

    `<G, WT> = <K, T>` for skew T, and `msign(K)` is skew. It is made by polynomials, in bfloat16 where
    K is large and the machine fast in it; a last cubic step in the caller's precision brings every
    singular value to at most 1, so the direction is feasible whatever the accuracy.

    The gap is bounded without singular values. With p the polynomials on K/s and f the floor they are made
    for, every `σ ≥ f s` reaches 1 − ε after the cubic step, and every smaller one loses at most
    `c s`, c the largest `σ (1 − p(σ))` below f. So `‖K‖_nuc ≤ (<K, T> + n c s)/(1 − ε)`. Where that is
    not enough, the floor is lowered.

    Args:
        tolerance: on the relative duality gap.
        max_iterations: how often the floor may be lowered, sixteenfold each time.

    Source: the Stiefel page of the Modula documentation.
    """

    tolerance: float = 1e-2
    max_iterations: int = 5

    name = "square-closed-form"
    reason = "at a square weight every direction is W times a skew matrix, and msign of one is skew"
    takes_any = False

    def _takes(self, shape: tuple[int, ...]) -> bool:
        return len(shape) > 1 and shape[-1] == shape[-2]

    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        del norm, dual  # √(out/in) is one
        if not isinstance(manifold, Stiefel):
            raise UnsupportedPairError(
                "manifold", "must be Stiefel for this solver", manifold, "Use solver='auto'."
            )
        w = point if manifold.radius == 1.0 else point / manifold.radius
        columns = w.shape[-1]
        c = w.mT @ near_one(gradient)
        k = skew(c)
        # A gradient without a tangent part leaves rounding, which is no direction.
        least = projection_rounding(w) ** 2 * c.square().sum(dim=MATRIX, keepdim=True)
        there = ~(k.square().sum(dim=MATRIX, keepdim=True) <= least)
        k = near_one(k)
        half = self.tolerance >= HALF and columns >= 256 and half_is_fast(w.device.type)
        start = k.to(torch.bfloat16 if half else k.dtype)
        accuracy = min(0.01, math.sqrt(self.tolerance / 6))
        short = 1.5 * (2 * accuracy if half else accuracy) ** 2
        floor, iterations = self.tolerance / 10, 0
        while True:
            polynomials = schedule(accuracy, floor)
            reached, size = gram_iterate(start, polynomials)
            t = skew(nearly_orthogonal_to_orthogonal(reached.to(k.dtype)))
            lost = columns * lost_below(polynomials, floor) * size.to(k.dtype)
            descent = inner(k, t)
            gap = torch.where(there, short + lost / (descent + lost), 0.0)[..., 0, 0]
            iterations += 1
            converged = bool((gap <= self.tolerance).all())
            if converged or iterations >= self.max_iterations:
                break
            floor /= 16
        return Solution(
            w @ torch.where(there, -t, 0.0),
            Status.CONVERGED if converged else Status.NOT_CONVERGED,
            iterations,
            gap,
            self.tolerance,
        )


HALF = 5e-3
"""From this tolerance on, bfloat16 is accurate enough: it leaves singular values within 0.02, and the cubic
step squares that."""
