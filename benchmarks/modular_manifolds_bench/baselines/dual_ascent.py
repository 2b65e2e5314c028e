"""Manifold Muon by dual ascent, as the seed post has it: the baseline."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.coefficients import POLAR_EXPRESS
from modular_manifolds.linalg.matrices import MATRIX, length, normalise
from modular_manifolds.linalg.newton_schulz import iterate
from modular_manifolds.linalg.symmetric import sym
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.solution import Solution, Status
from modular_manifolds_bench.baselines.baseline import Baseline
from modular_manifolds_bench.baselines.stiefel_dual import StiefelDual, multiplier_shape


@dataclass(frozen=True)
class DualAscent(Baseline):
    """Ascend the dual of Stiefel × Spectral: `Λ ← Λ − α (1 − k/steps) (WᵀA + AᵀW)`, `A = msign(G + 2WΛ)`.

    Starts at `Λ = −½ sym(WᵀG)` and stops when `‖WᵀA + AᵀW‖_F / n < tolerance` or after `steps`. The
    defaults are the post's. The step size is not scale-free: with `normalise=False`, as in the post,
    the result depends on the size of the gradient.

    The post uses the last A; here the direction is its tangent part, shrunk into the unit ball, which can be certified.
    The gap to `‖G + 2WΛ‖_nuc` of the last Λ is true. But the solver cannot aim at a gap, so the status is always
    NOT_CERTIFIED: a residual below the tolerance does not imply a small gap.

    Args:
        step_size: α.
        steps: the largest number of steps, and the length of the linear decay.
        tolerance: a bound on the root mean square of the tangency residual, not on the gap. In bfloat16 it cannot be
            reached.
        msign_steps: Polar Express steps in each msign.
        precision: the dtype of each msign; `"bfloat16"` as in the post, or `"input"`.
        normalise: bring the gradient to unit Frobenius norm first.

    Source: Bernstein, "Modular Manifolds" (2025), and the code published with it.
    """

    step_size: float = 0.01
    steps: int = 100
    tolerance: float = 1e-6
    msign_steps: int = 10
    precision: str = "bfloat16"
    normalise: bool = False

    name = "dual-ascent"
    reason = "it is the seed post's own method, kept as a baseline"

    def dual_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return multiplier_shape(shape)

    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        problem = StiefelDual.of(manifold, norm, point, gradient)
        # The problem comes at unit scale; the post's step size acts on the gradient as it came. For a vanishing one the
        # step ends at a number whose square is in range: Λ is all that counts then.
        w, g = problem.w, problem.gradient
        step_size = torch.full_like(g[..., :1, :1], self.step_size)
        if not self.normalise:
            least = torch.finfo(g.dtype).tiny ** 0.25
            step_size = step_size / length(gradient, dim=MATRIX).clamp_min(least)
        multiplier = -sym(w.mT @ g) / 2 if dual is None else sym(dual.to(w.dtype))
        iterations = 0
        a = self._msign(g + 2 * w @ multiplier)
        while iterations < self.steps:
            deviation = 2 * sym(w.mT @ a)
            root_mean_square = length(deviation, dim=MATRIX) / deviation.shape[-1]
            if bool((root_mean_square < self.tolerance).all()):
                break
            decay = 1 - iterations / self.steps
            multiplier = multiplier - step_size * decay * deviation
            a = self._msign(g + 2 * w @ multiplier)
            iterations += 1
        a, gap = problem.certified(problem.feasible(-a), multiplier)
        return Solution(
            problem.given(a), gap, iterations, dual=multiplier, shortfall=Status.NOT_CERTIFIED
        )

    def _msign(self, x: Tensor) -> Tensor:
        last = POLAR_EXPRESS[-1:] * max(0, self.msign_steps - len(POLAR_EXPRESS))
        polynomials = POLAR_EXPRESS[: self.msign_steps] + last
        # The post divides by 1.01 times the norm, against rounding.
        unit = normalise(x, dim=MATRIX) / 1.01
        dtype = torch.bfloat16 if self.precision == "bfloat16" else x.dtype
        return iterate(unit.to(dtype), polynomials).to(x.dtype)
