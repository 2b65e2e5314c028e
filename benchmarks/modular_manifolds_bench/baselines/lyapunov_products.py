"""The Lyapunov fixed point by matrix products alone, for accelerators."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.gram_newton_schulz import even_steps
from modular_manifolds.linalg.matrices import MATRIX, inner
from modular_manifolds.linalg.newton_schulz import schedule
from modular_manifolds.linalg.symmetric import sym
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.solution import SMALLEST_DIVISOR, Solution, relative_gap
from modular_manifolds_bench.baselines.baseline import Baseline
from modular_manifolds_bench.baselines.completion import Completion, bend, direction
from modular_manifolds_bench.baselines.stiefel_dual import StiefelDual, multiplier_shape, skew


@dataclass(frozen=True)
class LyapunovProducts(Baseline):
    """The fixed point of `Lyapunov` when an eigendecomposition would be slow (see there and `stiefel_dual`).

    `P = M^{-1/2}` comes from Polar Express on the Gram matrix M, and the correction D of
    `D P + P D = −((K+S)P + P(K+S)ᵀ)` from a few conjugate-gradient steps, one n×n product each. The
    completion takes two more inverse roots of the same kind. No eigenvalue is ever computed, and all
    bounds hold all the same: P is a polynomial whose error on the spectrum is known beforehand, so
    `tr M^{1/2} ≤ tr(P M)/(1 − ε)`.

    Args:
        tolerance: stop when the relative duality gap is at most this.
        max_iterations: rounds at most.
        inner_iterations: conjugate-gradient steps for each D.
        accuracy: ε of the inverse roots; it limits the gap to about 3 ε.

    Source: Zhang, Amsel, Chen, Dao, "Gram Newton–Schulz" (2026) for the roots; else as `Lyapunov`.
    """

    tolerance: float = 1e-2
    max_iterations: int = 30
    inner_iterations: int = 4
    accuracy: float = 1e-4

    half_the_digits = True
    name = "lyapunov-products"
    reason = "it is made of matrix products, which accelerators are best at"

    def dual_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return multiplier_shape(shape)

    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        problem = StiefelDual.of(manifold, norm, point, gradient)
        s = torch.zeros_like(problem.k)
        p, bound = self._bound(problem, s)
        if dual is not None:
            warm = sym(problem.c) + 2 * sym(dual.double())
            warm_p, warm_bound = self._bound(problem, warm)
            better = warm_bound < bound
            s, p = torch.where(better, warm, s), torch.where(better, warm_p, p)
            bound = torch.minimum(warm_bound, bound)
        best_s, best, iterations = s, bound, 0
        completion: Completion | None = None
        while True:
            correction = self._correction(problem.k + s, p)
            iterations += 1
            t = skew(-(problem.k + s + correction) @ p)
            completion = self._complete(problem, t).or_better(completion)
            gap = relative_gap(completion.descent, best)
            converged = float(gap.max()) <= self.tolerance
            if converged or iterations >= self.max_iterations:
                break
            s = s + correction
            p, bound = self._bound(problem, s)
            best_s, best = torch.where(bound < best, s, best_s), torch.minimum(best, bound)
        return Solution(
            problem.given(direction(problem, completion)),
            gap,
            iterations,
            self.tolerance,
            (best_s - sym(problem.c)) / 2,
        )

    def _bound(self, problem: StiefelDual, s: Tensor) -> tuple[Tensor, Tensor]:
        """P for this S, and a bound on the dual objective there, shape (*batch, 1, 1)."""
        b = problem.k + s
        m = b.mT @ b + problem.e
        p, shifted, _ = inverse_root_by_products(
            m, accuracy=self.accuracy, least=MIN_SINGULAR_VALUE_RELATIVE
        )
        return p, inner(p, shifted) / (1 - self.accuracy)

    def _correction(self, b: Tensor, p: Tensor) -> Tensor:
        """D with `D P + P D = −2 sym(B P)`, by conjugate gradients from zero."""
        residual = -2 * sym(b @ p)
        found, search = torch.zeros_like(residual), residual
        length = inner(residual, residual)
        for _ in range(self.inner_iterations):
            image = 2 * sym(search @ p)
            step = length / inner(search, image).clamp_min(SMALLEST_DIVISOR)
            found, residual = found + step * search, residual - step * image
            after = inner(residual, residual)
            search, length = residual + (after / length.clamp_min(SMALLEST_DIVISOR)) * search, after
        return found

    def _complete(self, problem: StiefelDual, t: Tensor) -> Completion:
        """`F = H^{1/2} (H^{1/2} E H^{1/2})^{-1/2} H^{1/2}` with `H = I − TᵀT`, short by the roots' error."""
        t = bend(t)
        h = t @ t
        h.diagonal(dim1=-2, dim2=-1).add_(1)
        p, _, _ = inverse_root_by_products(
            h, accuracy=self.accuracy, least=MIN_SINGULAR_VALUE_RELATIVE
        )
        # At most 1 + accuracy times the root of H; shrunk so that it is never more than the root.
        half = sym(h @ p) / (1 + self.accuracy)
        fill, _, size = inverse_root_by_products(
            sym(half @ problem.e @ half), accuracy=self.accuracy, least=MIN_SINGULAR_VALUE_RELATIVE
        )
        noise = t.shape[-1] * (8 * problem.precision) ** 2
        fill = torch.where(size > noise, sym(half @ fill @ half) / (1 + self.accuracy), 0.0)
        largest = 1 / (MIN_SINGULAR_VALUE_RELATIVE * size.clamp_min(SMALLEST_DIVISOR).sqrt())
        steepest = torch.where(size > noise, largest, 0.0)[..., 0, 0]
        return Completion(t, fill, inner(problem.e, fill) - inner(problem.k, t), steepest)


def inverse_root_by_products(
    m: Tensor, *, accuracy: float, least: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`P ≈ N^{-1/2}` for `N = M + δI`, M symmetric and positive semidefinite, without a decomposition.

    `δ = least² ‖M‖_F` keeps N away from singular. P is a polynomial in N, and every eigenvalue of
    `P N^{1/2}` is within `accuracy` of 1.

    Args:
        m: shape (*batch, n, n), float64; zero is allowed.
        accuracy: the largest error of an eigenvalue of `P N^{1/2}`. A smaller one needs more products.
        least: the square root of `δ/‖M‖_F`. A smaller one needs more products too.

    Returns:
        P, N, and `‖M‖_F` of shape (*batch, 1, 1).
    """
    size = m.square().sum(dim=MATRIX, keepdim=True).sqrt().clamp_min(torch.finfo(m.dtype).tiny)
    r = m / size
    r.diagonal(dim1=-2, dim2=-1).add_(least**2)
    # The largest eigenvalue of r is at most 1 + least², hardly more than 1.
    q = even_steps(r / (1 + least**2), schedule(accuracy, least / (1 + least**2) ** 0.5))
    scale = size * (1 + least**2)
    return q * scale.rsqrt(), r * size, size


MIN_SINGULAR_VALUE_RELATIVE = 3e-4
"""Singular values below this fraction of the largest get less than their full step; it decides the number of products of
an inverse root."""
