"""Manifold Muon by the Lyapunov fixed point: no step size, and a certificate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX
from modular_manifolds.linalg.symmetric import sym
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.solution import Solution, relative_gap
from modular_manifolds_bench.baselines.baseline import Baseline
from modular_manifolds_bench.baselines.completion import (
    Completion,
    complete,
    complete_softly,
    direction,
)
from modular_manifolds_bench.baselines.stiefel_dual import (
    StiefelDual,
    inverse_root,
    multiplier_shape,
    skew,
)


@dataclass(frozen=True)
class Lyapunov(Baseline):
    """Majorise and minimise the dual of Stiefel × Spectral (see `stiefel_dual` for the letters).

    `tr M^{1/2} = min over P ≻ 0 of ½ tr(P M) + ½ tr(P^{-1})`, attained at `P = M^{-1/2}`. For fixed P
    the best symmetric S solves `SP + PS = PK − KP`; in the eigenbasis of P, with eigenvalues p,

        S_ij = K_ij (p_i − p_j)/(p_i + p_j),    T_ij = −2 p_i p_j/(p_i + p_j) K_ij,

    in which `T = −(K + S)P` is skew: the part of the direction along W. Alternating the two lowers the dual
    objective, whatever the scale of the gradient. A round is one symmetric eigendecomposition and six
    n×n products; tall products are made before and after only. Three things make it quick:

    - It starts from `M = αKᵀK + E`, α between 0.2 and 0.8 by the part of the gradient along W, which is
      nearer to the optimal M than that of S = 0.
    - In the basis of M the alternation is repeated over diagonal P alone, at n² operations. The diagonal of M
      bounds the dual objective: `tr M^{1/2} ≤ Σ_i (M_ii)^{1/2}`, so no round needs another decomposition
      to be certified.
    - From the second round on, the step in S is made 1.6 times as long.

    The direction is made from T by `completion`, feasible to rounding; the gap is against the lowest bound
    on the dual. Completing costs another decomposition, so it is done only when the gap is expected to be
    small enough.

    Args:
        tolerance: stop when the relative duality gap is at most this.
        max_iterations: rounds at most.

    Source: the fixed point of J. Su, "Steepest descent on manifolds 3: Muon + Stiefel" (2025), read as
    majorise–minimise.
    """

    tolerance: float = 1e-2
    max_iterations: int = 30

    half_the_digits = True
    name = "lyapunov"
    reason = "its step has no size to tune, it needs the fewest rounds, and the gap is known"

    def dual_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return multiplier_shape(shape)

    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        problem = StiefelDual.of(manifold, norm, point, gradient)
        m = (0.2 + 0.6 * problem.along) * (problem.k.mT @ problem.k) + problem.e
        s = torch.zeros_like(problem.k)
        completion: Completion | None = None
        best: _Round | None = None
        expected, iterations = min(FIRST_GAP, float(problem.along.max()) / 6), 0
        while True:
            at = self._round(problem, m)
            best = at.or_lower(best)
            iterations += 1
            if expected <= self.tolerance or iterations >= self.max_iterations:
                # What the polynomial takes off T limits the gap: at the second look T is capped exactly.
                soft = completion is None and self._may_be_soft(problem)
                made = complete_softly(problem, at.t) if soft else complete(problem, at.t)
                completion = made.or_better(completion)
                gap = relative_gap(completion.descent, best.bound)
                expected = float(gap.max())
                converged = expected <= self.tolerance
                if converged or iterations >= self.max_iterations:
                    break
            expected *= GAP_FACTOR_PER_ROUND
            s = at.s if iterations == 1 else s + OVER_RELAXATION * (at.s - s)
            if iterations == 1 and dual is not None:
                # A dual from another gradient may be worse than none: it is taken if it is nearly there.
                s, taken = _or_near(s, sym(problem.c) + 2 * sym(dual.double()))
                expected = min(expected, self.tolerance) if taken else expected
            b = problem.k + s
            m = b.mT @ b + problem.e
        return Solution(
            problem.given(direction(problem, completion)),
            gap,
            iterations,
            self.tolerance,
            (best.s - sym(problem.c)) / 2,
        )

    def _may_be_soft(self, problem: StiefelDual) -> bool:
        rows, columns = problem.w.shape[-2:]
        return self.tolerance >= POLYNOMIAL_MIN_TOLERANCE and rows >= 2 * columns

    def _round(self, problem: StiefelDual, m: Tensor) -> _Round:
        eigenvalues, v = torch.linalg.eigh(m)
        k = v.mT @ problem.k @ v
        across = (v * (problem.e @ v)).sum(dim=-2)
        squared = k.square()
        least = max(problem.precision, (SINGULAR_FLOOR_PER_TOLERANCE * self.tolerance) ** 2)

        def on_the_diagonal(values: Tensor) -> tuple[Tensor, Tensor]:
            """The share of the next S for these eigenvalues of M, and the diagonal of M there."""
            q = _share(inverse_root(values, least))
            return q, (across + (squared * q.square()).sum(dim=-2)).clamp_min(0)

        _, diagonal = on_the_diagonal(eigenvalues)
        q, diagonal = on_the_diagonal(diagonal)
        bound = diagonal.sqrt().sum(dim=-1, keepdim=True).unsqueeze(-1)
        p = inverse_root(diagonal, least)
        s = v @ (k * (q - 1)) @ v.mT
        t = v @ (k * _share(p) * -p.unsqueeze(-2)) @ v.mT
        return _Round(sym(s), skew(t), bound)


FIRST_GAP = 0.025
"""About the largest gap after one round on recorded gradients."""
GAP_FACTOR_PER_ROUND = 0.35
"""The estimated factor of a round on the gap. The gap is computed only when the estimate is small enough."""
OVER_RELAXATION = 1.6
"""The over-relaxation of the step in S; below 2 the majoriser still decreases."""
WARM_START_MAX_CHANGE_RELATIVE = 0.3
"""An earlier dual is the start if its S is closer than this to that of the first round, relatively."""
SINGULAR_FLOOR_PER_TOLERANCE = 0.03
"""The floor of singular values, in the largest one times the tolerance: a nearly singular M would slow down the fixed
point, and smaller ones do not matter for the tolerance."""
POLYNOMIAL_MIN_TOLERANCE = 5e-3
"""The smallest tolerance with which a polynomial shrinks T into the ball; this may cost a gap of 2e-3."""


@dataclass(frozen=True)
class _Round:
    """The result of one eigendecomposition; `bound` is on the dual objective at `s`."""

    s: Tensor  # the dual variable, (*batch, n, n)
    t: Tensor  # the part of the direction along W, (*batch, n, n)
    bound: Tensor  # (*batch, 1, 1)

    def or_lower(self, other: _Round | None) -> _Round:
        """The S with the lower bound, for each matrix of the batch; the rest is this round's."""
        if other is None:
            return self
        ours = self.bound <= other.bound
        s, bound = torch.where(ours, self.s, other.s), torch.minimum(self.bound, other.bound)
        return _Round(s, self.t, bound)


def _or_near(s: Tensor, warm: Tensor) -> tuple[Tensor, bool]:
    """`warm` for each matrix of the batch if it is near `s`, else `s`; and whether any was near."""
    off = (warm - s).square().sum(dim=MATRIX, keepdim=True)
    near = off <= WARM_START_MAX_CHANGE_RELATIVE**2 * s.square().sum(dim=MATRIX, keepdim=True)
    return torch.where(near, warm, s), bool(near.any())


def _share(p: Tensor) -> Tensor:
    """`2 p_i/(p_i + p_j)`, shape (*batch, n, n)."""
    return 2 * p.unsqueeze(-1) / (p.unsqueeze(-1) + p.unsqueeze(-2))
