"""Manifold Muon by ADMM, the alternating direction method of multipliers: a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX, divide_safely, length
from modular_manifolds.linalg.symmetric import eye_like, gram, sym
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.solution import Solution, Status
from modular_manifolds_bench.baselines.baseline import Baseline
from modular_manifolds_bench.baselines.stiefel_dual import StiefelDual, multiplier_shape


@dataclass(frozen=True)
class ADMM(Baseline):
    """Split the dual of Stiefel × Spectral: `min ‖X‖_nuc` subject to `X = G + 2WΛ`, Λ symmetric.

    With the scaled multiplier U of the constraint, each step is three closed forms:

        2Λ ← sym(Wᵀ(U + X − G))              least squares, since WᵀW = I
        X ← B, σ ← max(σ − 1/ρ, 0)           singular values of B = G + 2WΛ − U, shrunk
        U ← U + X − (G + 2WΛ)

    It starts at `Λ = −½ sym(WᵀG)`, `X = G + 2WΛ`, `U = 0` and takes all its steps. Like the step size of
    dual ascent, 1/ρ is a size of singular values: with `normalise=False`, as published, the result
    depends on the size of the gradient.

    In each step the published code shrinks by two msigns of tall matrices. Here one symmetric n×n eigendecomposition in
    float64 does the same, because X, B and U are combinations of W and G⊥ with n×n coefficients. The direction is `−msign(G + 2WΛ)` of the last Λ, as published. If the
    optimal `G + 2WΛ` is singular, msign loses the part that would make it tangent, and a gap remains. `ρU` has no such gap:
    after every step its singular values are `min(ρσ, 1)`, and if the steps converge, `ρU` is the steepest direction.
    In both cases the tangent part is shrunk into the unit ball, so that it can be certified.

    Args:
        rho: ρ, the weight of the constraint.
        steps: the number of steps. There are none for a square W without a dual if the direction depends on Λ only,
            because steps do not change Λ then.
        normalise: bring the gradient to unit Frobenius norm first.
        direction: from the last Λ as published, or the multiplier ρU, which is zero before the first step.

    Source: S. Buchanan, "Speeding up manifold Muon with ADMM" (2025), and the code published with it.
    """

    rho: float = 4.0
    steps: int = 10
    normalise: bool = False
    direction: Literal["published", "multiplier"] = "published"

    name = "admm"
    reason = "it is a published way to solve the same dual in few steps, kept as a baseline"

    def dual_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return multiplier_shape(shape)

    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        problem = StiefelDual.of(manifold, norm, point, gradient)
        # The problem comes at unit scale; the published ρ acts on the gradient as it came.
        size = torch.ones_like(problem.k[..., :1, :1])
        if not self.normalise:
            size = length(gradient, dim=MATRIX).double()
        shrink = divide_safely(torch.ones_like(size), self.rho * size)
        n, c = problem.k.shape[-1], sym(problem.c)
        s = torch.zeros_like(problem.k) if dual is None else c + 2 * sym(dual.double())
        # W(K + S) + G⊥ as its coefficients, one above the other; so are X, B and U.
        g = torch.cat((problem.k, eye_like(problem.k).expand_as(problem.k)), dim=-2)
        x, u = g + _along(s), torch.zeros_like(g)
        # For a square W the steps stay at `S = 0`: they would only add rounding.
        square = problem.w.shape[-2] == problem.w.shape[-1]
        published = self.direction == "published"
        steps = 0 if square and dual is None and published else self.steps
        for _ in range(steps):
            s = sym((x + u)[..., :n, :])
            b = g + _along(s) - u
            sigma, basis = _singular(problem, b)
            x = b @ _function(basis, (1 - divide_safely(shrink[..., 0], sigma)).clamp_min(0))
            u = x - b
        multiplier = (s - c) / 2
        if published:
            a = problem.feasible(_published(problem, g, s))
        else:
            a = problem.feasible(_tall(problem, divide_safely(u, shrink)))
        a, gap = problem.certified(a, multiplier)
        return Solution(
            problem.given(a), gap, steps, dual=multiplier, shortfall=Status.NOT_CERTIFIED
        )


def _published(problem: StiefelDual, g: Tensor, s: Tensor) -> Tensor:
    """`−msign(G + 2WΛ)`, tall."""
    sigma, basis = _singular(problem, g + _along(s))
    # Singular values that are lost in the caller's rounding count as this large.
    least = sigma[..., -1:] * problem.precision**0.5
    root = _function(basis, divide_safely(torch.ones_like(sigma), sigma.maximum(least)))
    tall = problem.gradient + problem.w @ (s - sym(problem.c)).to(problem.w.dtype)
    return -tall @ root.to(tall.dtype)


def _tall(problem: StiefelDual, x: Tensor) -> Tensor:
    """The tall matrix with coefficients `x`."""
    n = x.shape[-1]
    across = (x[..., n:, :] * problem.scale).to(problem.w.dtype)
    return problem.w @ x[..., :n, :].to(problem.w.dtype) + problem.across @ across


def _along(s: Tensor) -> Tensor:
    """The coefficients of W S."""
    return torch.cat((s, torch.zeros_like(s)), dim=-2)


def _singular(problem: StiefelDual, x: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values, ascending, and right singular vectors of the tall matrix with coefficients `x`."""
    n = x.shape[-1]
    along, across = x[..., :n, :], x[..., n:, :]
    squares, basis = torch.linalg.eigh(gram(along) + sym(across.mT @ problem.e @ across))
    return squares.clamp_min(0).sqrt(), basis


def _function(basis: Tensor, values: Tensor) -> Tensor:
    """The symmetric matrix with these eigenvectors and eigenvalues."""
    return (basis * values.unsqueeze(-2)) @ basis.mT
