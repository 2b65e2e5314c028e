"""Manifold Muon of a matrix of more than 2n rows, by inverses of n×n matrices on the host: tensors in, tensors out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import (
    MATRIX,
    projection_rounding,
    scale_unless_moderate,
)
from modular_manifolds.linalg.newton_schulz import nearly_orthogonal_to_orthogonal
from modular_manifolds.linalg.products import (
    combined,
    multiply,
    plus_product,
    product,
)
from modular_manifolds.linalg.rational_gap import RationalGap
from modular_manifolds.linalg.skew_resolvent import MIN_SIZE, reduced_sign
from modular_manifolds.linalg.zolotarev import RationalSign
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.solvers.floors import lower_floor
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.skew_plan import LIFT_ROUNDING, PolynomialPlan
from modular_manifolds.solvers.solution import Solution


@dataclass(frozen=True)
class ResolventPlan(Plan):
    """`A = −h(2Γ/s) W` with Zolotarev's rational function h instead of the sign, and a bound on its gap.

    With `C = WᵀG`, `S = C − Cᵀ`, `G⊥ = G − WC` and `E = G⊥ᵀG⊥` in float64, the resolvents of Γ are inverses of
    `I + (t/s) S + (t/s)² E`, and `A = −(W P + G⊥ Y)` with P and Y of shape n×n. The values of h are at most 1, so A is feasible to
    rounding.

    Args:
        manifold: Stiefel, of any radius.
        unit: the spectral norm of the direction.
        floor: the singular values of 2Γ/s from which on h is near 1.
        attempt: the number of this plan in the sequence of deeper plans, from 1.
        max_attempts: the largest such number.
        fallback: a plan of polynomials for the same matrices, whose float64 form comes last.
        function: h.
        bound: of the gap.
    """

    manifold: Stiefel
    unit: float
    floor: float
    attempt: int
    max_attempts: int
    fallback: PolynomialPlan
    function: RationalSign = field(init=False)
    bound: RationalGap = field(init=False)

    decides_on_host = True

    def __post_init__(self) -> None:
        function = RationalSign.within(self.floor, DISTANCE_SHARE * (self.tolerance or 0.0))
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "bound", RationalGap.of(function))

    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        del dual
        w, wide = self.manifold.unit_tall(point)
        g, length = scale_unless_moderate(gradient.mT if wide else gradient)
        if length is None:
            length = torch.linalg.vector_norm(g, dim=MATRIX, keepdim=True)
        w = nearly_orthogonal_to_orthogonal(w) if self.attempt > 1 else w
        c = multiply(w.mT, g)
        off_w = plus_product(g, w, c, factor=-1.0)
        if self.attempt > 1:
            rest = multiply(w.mT, off_w)
            off_w = plus_product(off_w, w, rest, factor=-1.0)
        sign = reduced_sign(c - c.mT, off_w, self.function)
        a = product(off_w, sign.bottom.to(w.dtype))
        a = combined(a, w, sign.top.to(w.dtype), beta=-1.0, alpha=-1.0, over=True)
        descent = -torch.mul(g, a, out=off_w).sum(dim=MATRIX, keepdim=True).to(sign.size.dtype)
        # Size and total are those of 2Γ.
        nuclear = self.bound.nuclear_norm(sign.total / 2, sign.size / 2, *sign.traces)
        rounding = 2 * LIFT_ROUNDING * torch.finfo(w.dtype).eps * length / sign.size
        gap = (1 - descent / nuclear + rounding).clamp_(0.0, 1.0)
        no_direction = sign.size <= 2 * projection_rounding(a) * length + MIN_SIZE
        a, gap = a.masked_fill_(no_direction, 0.0), gap.masked_fill_(no_direction, 0.0)
        a = a.mT if wide else a
        a = a if self.unit == 1.0 else a.mul_(self.unit)
        gap = gap.to(point.dtype).reshape(point.shape[:-2])
        return Solution(a, gap, self.attempt, self.tolerance)

    def deeper(self, gap: float | None = None) -> Plan | None:
        """A lower floor and more care with directions that are hardly there; then polynomials in float64."""
        if self.attempt >= self.max_attempts or (gap is not None and math.isnan(gap)):
            return None
        if self.attempt > 1:
            return self.fallback.in_float64(self.attempt + 1)
        floor = lower_floor(self.floor, RESOLVENT_MIN_FLOOR, gap, self.tolerance)
        return replace(self, attempt=2, floor=floor)

    def __str__(self) -> str:
        count = len(self.function.poles)
        return (
            f"it inverts {count} matrices of {self.fallback.rank // 2} columns in float64, for singular values of Γ from "
            f"{self.floor:.1g} of the largest on; the gap is bounded without singular values"
        )


DISTANCE_SHARE = 1 / 3
"""The part of the tolerance that singular values above the floor may lose."""
TOLERANCE_TO_RESOLVENT_FLOOR = 33.0
"""The ratio of the tolerance to the floor of the first plan."""
RESOLVENT_MIN_FLOOR = 3e-5
"""The lowest floor: h is as steep as its inverse at zero, and magnifies the rounding of G⊥ in float32 by that."""
