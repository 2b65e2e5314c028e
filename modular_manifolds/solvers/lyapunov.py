"""Manifold Muon by the Lyapunov fixed point: no step size, and a certificate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import divide_safely, inner
from modular_manifolds.linalg.symmetric import sym
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.solution import Solution, Status
from modular_manifolds.solvers.stiefel_dual import StiefelDual


@dataclass(frozen=True)
class Lyapunov(Solver):
    """Majorise and minimise the dual of Stiefel × Spectral (see `stiefel_dual` for the letters).

    `tr M^{1/2} = min over P ≻ 0 of ½ tr(P M) + ½ tr(P^{-1})`, attained at `P = M^{-1/2}`. For fixed P
    the best symmetric S solves `SP + PS = PK − KP`; in the eigenbasis of P, with eigenvalues p,

        S_ij = K_ij (p_i − p_j)/(p_i + p_j).

    Alternating the two lowers the dual objective every time, whatever the scale of the gradient. Each
    round is one symmetric eigendecomposition and four n×n products; the two tall products are made once
    before and twice after. A square W needs no round: there `S = 0` is optimal.

    The direction is `A = −(G⊥ + W(K+S)) P`, its tangent part taken and shrunk into the unit ball, so it
    is feasible to rounding; the gap is against the dual objective of the last S.

    Args:
        tolerance: stop when the relative duality gap is at most this.
        max_iterations: rounds at most.

    Source: MM form of the fixed point of J. Su, "Steepest descent on manifolds 3: Muon + Stiefel"
    (2025).
    """

    tolerance: float = 1e-3
    max_iterations: int = 20

    name = "lyapunov"
    reason = (
        "its step has no size to tune, the dual objective falls every round, and the gap is known"
    )

    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        problem = StiefelDual.of(manifold, norm, point, gradient)
        s = torch.zeros_like(problem.k) if dual is None else sym(problem.c) + 2 * sym(dual)
        best, iterations = _evaluate(problem, s), 0
        if dual is not None:
            # A dual from another gradient may be worse than none: keep the better one of each matrix.
            cold = _evaluate(problem, torch.zeros_like(s))
            best = _pick(cold.objective < best.objective, cold, best)
        while iterations < self.max_iterations and not bool((best.gap <= self.tolerance).all()):
            best = _evaluate(problem, _next(problem, best))
            iterations += 1
        a = problem.feasible(-(problem.across + problem.w @ (problem.k + best.s)) @ best.p)
        gap = problem.gap(a, best.objective)
        converged = bool((gap <= self.tolerance).all())
        return Solution(
            problem.direction(a),
            Status.CONVERGED if converged else Status.NOT_CONVERGED,
            iterations,
            gap,
            (best.s - sym(problem.c)) / 2,
        )


@dataclass(frozen=True)
class _Iterate:
    s: Tensor  # the dual variable, (*batch, n, n)
    basis: Tensor  # eigenvectors of M
    roots: Tensor  # eigenvalues of P = M^{-1/2}, (*batch, n)
    p: Tensor  # P itself
    objective: Tensor  # tr M^{1/2}, (*batch, 1, 1)
    gap: Tensor  # an upper bound on the relative duality gap, (*batch,)


def _evaluate(problem: StiefelDual, s: Tensor) -> _Iterate:
    b = problem.k + s
    eigenvalues, basis = torch.linalg.eigh(sym(b.mT @ b + problem.e))
    eigenvalues = eigenvalues.clamp_min(0)
    objective = eigenvalues.sqrt().sum(dim=-1, keepdim=True).unsqueeze(-1)
    # A direction that the gradient does not have gets a large but finite P: A stays below 1 there.
    floor = eigenvalues[..., -1:] * torch.finfo(s.dtype).eps
    roots = torch.where(floor > 0, torch.maximum(eigenvalues, floor).rsqrt(), 0.0)
    p = (basis * roots.unsqueeze(-2)) @ basis.mT
    return _Iterate(s, basis, roots, p, objective, _gap_bound(problem, b @ p, p, objective))


def _gap_bound(problem: StiefelDual, y: Tensor, p: Tensor, objective: Tensor) -> Tensor:
    """The relative gap that the tangent part of A leaves, bounded with n×n products alone.

    With `Y = (K+S)P = T + Q` split into skew T and symmetric Q, the tangent part of A is
    `A' = −G⊥P − WT`, its descent `tr(EP) + <K, T>`, and
    `A'ᵀA' = PEP + TᵀT ⪯ I − TᵀQ − QT − Q² ⪯ I − (TᵀQ + QT)`, so `‖A'‖₂² ≤ 1 + ‖TᵀQ + QT‖_F`.
    """
    t, q = (y - y.mT) / 2, sym(y)
    excess = torch.linalg.matrix_norm(t.mT @ q + q @ t, keepdim=True)
    primal = (inner(problem.e, p) + inner(problem.k, t)) / (1 + excess).sqrt()
    return divide_safely((objective - primal).clamp_min(0), objective)[..., 0, 0]


def _next(problem: StiefelDual, at: _Iterate) -> Tensor:
    row, column = at.roots.unsqueeze(-1), at.roots.unsqueeze(-2)
    ratio = divide_safely(row - column, row + column)
    return sym(at.basis @ ((at.basis.mT @ problem.k @ at.basis) * ratio) @ at.basis.mT)


def _pick(first: Tensor, a: _Iterate, b: _Iterate) -> _Iterate:
    def choose(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(
            first.reshape(first.shape[:-2] + (1,) * (x.dim() - first.dim() + 2)), x, y
        )

    return _Iterate(
        choose(a.s, b.s),
        choose(a.basis, b.basis),
        choose(a.roots, b.roots),
        choose(a.p, b.p),
        choose(a.objective, b.objective),
        choose(a.gap, b.gap),
    )
