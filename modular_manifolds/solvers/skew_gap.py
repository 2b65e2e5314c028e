"""A bound on the duality gap of a skew direction, without singular values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.host import Numbers, on_host
from modular_manifolds.linalg.matrices import MATRIX, inner
from modular_manifolds.linalg.newton_schulz import Reach
from modular_manifolds.solvers.skew_lift import Lift


@dataclass(frozen=True)
class SkewGap:
    """What is known of `‖Γ‖_nuc` when polynomials p were applied to Γ/s, made for singular values from f on.

    Every `σ ≥ f s` comes within δ of 1, and within `ε = 3δ²/2` after a cubic step. The smaller ones lose at
    most `c s` each, c the largest `σ (1 − p(σ))` below f; and at most `μ s Σ (1 − p²)` together, μ the largest
    `σ/(1 + p(σ))`, where `Σ (1 − p²) ≤ k (1 + δ)² − ‖Ω‖_F²` for Γ of rank k. So
    `‖Γ‖_nuc ≤ (<Γ, Ω> + lost)/(1 − ε)`.
    """

    reach: Reach
    off: float  # δ
    turned: float  # the part of the descent that rounding may cost by turning singular vectors
    noise: float  # a singular value of what Γ does not have, after p
    size: Numbers  # s

    @classmethod
    def of(
        cls, run: tuple[Polynomial, ...], floor: float, size: Numbers, dtype: torch.dtype
    ) -> SkewGap:
        """For a run on Γ/s in `dtype`."""
        half = dtype is torch.bfloat16
        reach = Reach.of(run, floor)
        noise = 16.0 * torch.finfo(torch.float32 if half else dtype).eps / floor
        return cls(
            reach, reach.off + (LENGTHS if half else 0.0), TURNS if half else 0.0, noise, size
        )

    def seems_met(self, problem: Lift, x: Tensor, tolerance: float) -> bool:
        """Whether the gap will be within the tolerance, by what Ω before the cubic step tells."""
        length, along = on_host(
            torch.linalg.vector_norm(x, dim=MATRIX, dtype=problem.gamma.dtype),
            inner(problem.gamma, x),
        )
        return bool((self._gap(problem, length, along, along) <= tolerance).all())

    def gap(self, problem: Lift, omega: Tensor, descent: Numbers, most: Numbers) -> Numbers:
        """The bound, one a matrix: for Ω of the run, and `−<G, A>` and `<Γ, Ω>` after the cubic step."""
        (length,) = on_host(torch.linalg.vector_norm(omega, dim=MATRIX))
        return self._gap(problem, length, descent, most)

    def _gap(self, problem: Lift, length: Numbers, descent: Numbers, most: Numbers) -> Numbers:
        rank, columns = problem.rank, problem.gamma.shape[-1]
        missing = rank * (1 + self.off) ** 2 - length**2 + (columns - rank) * self.noise**2
        lost = self.size * np.clip(self.reach.share * missing, 0.0, rank * self.reach.each)
        with np.errstate(invalid="ignore"):
            gap = 1 - descent * (1 - 1.5 * self.off**2) / (most + lost) + self.turned
        return np.where(problem.there, np.maximum(gap, 0.0), 0.0)


LENGTHS = 0.02
"""What rounding in bfloat16 may add to the distance of a singular value from 1; the cubic step squares that."""
TURNS = 2e-3
"""What it may cost of the descent. Seen on matrices of low rank, of singular values that fall evenly or by a
power, and Gaussian ones: at most 1e-3."""
