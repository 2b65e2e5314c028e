"""Manifold Muon by the Lyapunov fixed point: no step size, and a certificate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import divide_safely
from modular_manifolds.linalg.symmetric import sym
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.solution import Solution, Status
from modular_manifolds.solvers.stiefel_dual import Completion, StiefelDual


@dataclass(frozen=True)
class Lyapunov(Solver):
    """Majorise and minimise the dual of Stiefel × Spectral (see `stiefel_dual` for the letters).

    `tr M^{1/2} = min over P ≻ 0 of ½ tr(P M) + ½ tr(P^{-1})`, attained at `P = M^{-1/2}`. For fixed P
    the best symmetric S solves `SP + PS = PK − KP`; in the eigenbasis of P, with eigenvalues p,

        S_ij = K_ij (p_i − p_j)/(p_i + p_j).

    Alternating the two lowers the dual objective every time, whatever the scale of the gradient. Each
    round is one symmetric eigendecomposition and four n×n products; tall products are made before and
    after only. A square W needs no round: there `S = 0` is optimal.

    The direction is made from `−(K+S)P` by `StiefelDual.complete`, feasible to rounding; the gap is
    against the dual objective of the same S. Looking at it costs two decompositions more, so it is looked
    at only where the objective's last fall says that it can be small enough.

    Args:
        tolerance: stop when the relative duality gap is at most this.
        max_iterations: rounds at most.

    Source: the fixed point of J. Su, "Steepest descent on manifolds 3: Muon + Stiefel" (2025), read as
    majorise–minimise.
    """

    tolerance: float = 1e-2
    max_iterations: int = 30

    name = "lyapunov"
    reason = (
        "its step has no size to tune, the dual objective falls every round, and the gap is known"
    )

    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        problem = StiefelDual.of(manifold, norm, point, gradient)
        at = self._evaluate(problem, torch.zeros_like(problem.k))
        if dual is not None:
            # A dual from another gradient may be worse than none: keep the better of each matrix.
            at = _better(self._evaluate(problem, sym(problem.c) + 2 * sym(dual.double())), at)
        square = problem.w.shape[-2] == problem.w.shape[-1]
        completion: Completion | None = None
        look, iterations, limit, fall = square or dual is not None, 0, SMALL * self.tolerance, 1.0
        aim = MARGIN * self.tolerance
        while True:
            if look or iterations == self.max_iterations:
                # Of all that were made the best, so that more rounds never widen the gap.
                completion = problem.complete((problem.k + at.s) @ at.p).or_better(completion)
                left = float(_gap(at.objective, completion.descent).max())
                if left <= aim or iterations == self.max_iterations:
                    break
                # The gap is about proportional to the fall: look again when it should have closed.
                limit = min(limit, 1.5 * fall * aim / left)
            before, at = at, self._evaluate(problem, _next(problem, at))
            iterations += 1
            fall = float(_gap(before.objective, at.objective).max())
            look = fall <= limit
        a = problem.direction(completion)
        gap = problem.gap(a, at.objective)
        converged = bool((gap <= self.tolerance).all())
        return Solution(
            problem.given(a),
            Status.CONVERGED if converged else Status.NOT_CONVERGED,
            iterations,
            gap,
            self.tolerance,
            (at.s - sym(problem.c)) / 2,
        )

    def _evaluate(self, problem: StiefelDual, s: Tensor) -> _Iterate:
        b = problem.k + s
        eigenvalues, basis = torch.linalg.eigh(sym(b.mT @ b + problem.e))
        objective = eigenvalues.clamp_min(0).sqrt().sum(dim=-1, keepdim=True).unsqueeze(-1)
        roots = problem.inverse_root(eigenvalues, least=(SMOOTH * self.tolerance) ** 2)
        return _Iterate(s, basis, roots, (basis * roots.unsqueeze(-2)) @ basis.mT, objective)


SMOOTH = 0.03
"""Singular values below this part of the tolerance, of the largest, count as this large: where M is nearly
singular the fixed point would otherwise crawl, and a gap of the tolerance does not need them."""
SMALL = 4.0
"""A fall of the objective by this many tolerances says that the gap may be near the tolerance."""
MARGIN = 0.95
"""What is left of the tolerance for the rounding of the direction itself, in the caller's dtype."""


@dataclass(frozen=True)
class _Iterate:
    s: Tensor  # the dual variable, (*batch, n, n)
    basis: Tensor  # eigenvectors of M
    roots: Tensor  # eigenvalues of P = M^{-1/2}, (*batch, n)
    p: Tensor  # P itself
    objective: Tensor  # tr M^{1/2}, (*batch, 1, 1)


def _next(problem: StiefelDual, at: _Iterate) -> Tensor:
    row, column = at.roots.unsqueeze(-1), at.roots.unsqueeze(-2)
    ratio = divide_safely(row - column, row + column)
    return sym(at.basis @ ((at.basis.mT @ problem.k @ at.basis) * ratio) @ at.basis.mT)


def _gap(above: Tensor, below: Tensor) -> Tensor:
    return divide_safely(above - below, above)[..., 0, 0]


def _better(a: _Iterate, b: _Iterate) -> _Iterate:
    first = a.objective < b.objective  # shape: (*batch, 1, 1)
    return _Iterate(
        torch.where(first, a.s, b.s),
        torch.where(first, a.basis, b.basis),
        torch.where(first[..., 0], a.roots, b.roots),
        torch.where(first, a.p, b.p),
        torch.where(first, a.objective, b.objective),
    )
