"""Manifold Muon on rows: three sums of n×n matrices a step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import readable
from modular_manifolds.linalg.polar_factor import polar_factor_within
from modular_manifolds.linalg.products import plus_product
from modular_manifolds.linalg.rows import SharedRows
from modular_manifolds.solvers.row_sharded.plan import RowPlan, triangle
from modular_manifolds.solvers.skew_lift import ReducedLift
from modular_manifolds.solvers.skew_plan import PolynomialPlan


@dataclass(frozen=True)
class StiefelRows(RowPlan):
    """`A = −msign(G Wᵀ − W Gᵀ) W` from three sums: `C = WᵀG`, `E = G⊥ᵀG⊥`, and `XᵀX` of `X = W + ηA`.

    Γ in the columns of `[W, G⊥R⁻¹]` follows from C and E alone (see `SkewSign`), and so does Ω. Then `A = W P + G⊥ Q` with
    n×n matrices P and Q, row by row. The retraction is `X (XᵀX)^{-1/2}`.

    E is summed in float64: a gradient of low rank leaves only rounding in most directions of G⊥, which in float32 would be
    as long as the root of its eps. As E is symmetric, its triangle has as many bytes as an n×n matrix in float32. On a
    CPU the gap is read and Ω computed again from the same C and E if it is too large: no sum is repeated.

    Args:
        radius: that of the manifold.
        polynomials: the plan for Γ of 2n×2n.
    """

    radius: float
    polynomials: PolynomialPlan

    @property
    def sums(self) -> tuple[tuple[int, int], ...]:
        n, size = self.columns, self.polynomials.dtype.itemsize
        return (n**2 + 1, size), (triangle(n), 8), (triangle(n), size)

    def deeper(self, gap: float | None = None) -> RowPlan | None:
        finer = self.polynomials.finer(gap)
        return None if finer is None else replace(self, polynomials=finer)

    def _solve(self, w: Tensor, g: Tensor, rows: SharedRows) -> tuple[Tensor, Tensor, int]:
        w, numbers = self._in_radii(w), torch.finfo(g.dtype)
        c, square = rows.cross_and_square(w, g)
        zero = square == 0
        size = square.sqrt_().clamp_(numbers.tiny, numbers.max)
        g, c = g.div_(size), c / size
        lift = ReducedLift.from_parts(
            w, g, c, plus_product(g, w, c, factor=-1.0), rows, double_gram=True
        )
        plan = self.polynomials
        a, gap = plan.along(lift)
        gap.masked_fill_(zero.squeeze(-1).squeeze(-1), 0.0)
        while readable(a):
            worst = float(gap.max())
            deeper = None if worst <= self.tolerance else plan.finer(worst)
            if deeper is None:
                break
            plan = deeper
            a, gap = plan.along(lift)
        return a, gap, plan.attempt

    def _retract(self, w: Tensor, a: Tensor, length: float, rows: SharedRows) -> Tensor:
        landed = polar_factor_within(self._in_radii(w + a), length / self.radius, rows)
        return landed if self.radius == 1.0 else landed * self.radius

    def _in_radii(self, w: Tensor) -> Tensor:
        return w if self.radius == 1.0 else w / self.radius

    def __str__(self) -> str:
        return f"every process steps its rows after three sums of {self.columns}×{self.columns}; {self.polynomials}"
