"""Manifold Muon by polynomials in a skew matrix: tensors in, tensors out."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from modular_manifolds.linalg.backend import certify_by_kernels_
from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.matrices import MATRIX, inner, projection_rounding, unit_length
from modular_manifolds.linalg.newton_schulz import nearly_orthogonal_to_orthogonal, schedule
from modular_manifolds.linalg.polar_express import BF16_MARGIN, FLOAT32_MARGIN, extended
from modular_manifolds.linalg.skew_newton_schulz import SkewGap, SkewRun, skew_iterate
from modular_manifolds.manifolds.fixed_gram import FixedGram
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.skew_lift import Lift, ReducedLift, TurnedLift, WholeLift
from modular_manifolds.solvers.solution import Solution


@dataclass(frozen=True)
class PolynomialPlan(Plan):
    """`A = −p(Ω) W` with Ω by polynomials from Γ, and a bound on its gap. Products of matrices, no decomposition.

    Args:
        manifold: of any radius.
        unit: the spectral norm of the direction.
        rank: of Γ; its rank is at most this.
        columns: of Γ; its rank is at most this.
        whole: Γ is m×m; else it is 2n×2n.
        on_host: points are checked, as their numbers lie in the host's memory.
        dtype: of all products but those of the polynomials.
        double_gram: the part of G off W is factored in float64, if Γ is 2n×2n.
        half: the polynomials' products are in bfloat16.
        kernels: they run on the Triton kernels.
        accuracy: what the polynomials reach, and for singular values of which part of the largest.
        floor: what the polynomials reach, and for singular values of which part of the largest.
        look: which plan this is of how many.
        looks: which plan this is of how many.
        start: the polynomials that a run for a higher floor began with.
        polynomials: what follows from these for the iteration and for its gap.
        bound: what follows from these for the iteration and for its gap.
    """

    manifold: Stiefel | FixedGram
    unit: float
    rank: int
    columns: int
    whole: bool
    on_host: bool
    dtype: torch.dtype
    double_gram: bool
    half: bool
    kernels: bool
    accuracy: float
    floor: float
    look: int
    looks: int
    start: tuple[Polynomial, ...] = ()
    polynomials: tuple[Polynomial, ...] = field(init=False)
    bound: SkewGap = field(init=False)

    decides_on_host = True

    def __post_init__(self) -> None:
        if self.start:
            room = BF16_MARGIN if self.half else FLOAT32_MARGIN
            polynomials = extended(self.start, self.floor, self.accuracy, room)
        else:
            polynomials = schedule(self.accuracy, self.floor, half=self.half)
        bound = SkewGap.of(
            polynomials,
            self.floor,
            rank=self.rank,
            columns=self.columns,
            dtype=torch.float32 if self.half else self.dtype,
            half=self.half,
        )
        object.__setattr__(self, "polynomials", polynomials)
        object.__setattr__(self, "bound", bound)

    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        del dual
        w, g, wide = self._tall(point, gradient)
        lift = self._lift(w, g)
        applied, omega, scale = self._polynomials_on(lift.gamma, lift.border)
        a, pair = lift.direction(omega)
        if self.kernels:
            bound = self.bound.numbers(2 * self._lift_rounding, 2 * projection_rounding(a))
            gap = certify_by_kernels_(
                a, lift.g, omega, scale, bound, pair=pair, info=lift.outcome()
            )
        else:
            length = torch.linalg.vector_norm(omega, dim=MATRIX, keepdim=True)
            attained = None if pair is None else inner(*pair)
            alone = self.on_host and point.dim() == 2
            certify = applied._certify_one if alone else applied._certify
            a, gap = certify(a, length, scale, inner(lift.g, a), attained, lift.outcome())
        a = (a.mT if wide else a).to(point.dtype)
        a = a if self.unit == 1.0 else a.mul_(self.unit)
        return Solution(a, gap.reshape(point.shape[:-2]), self.look, self.tolerance)

    def _polynomials_on(self, gamma: Tensor, border: int) -> tuple[PolynomialPlan, Tensor, Tensor]:
        """Ω and s of 2Γ, and the plan with the polynomials that made it.

        On the host the last polynomial for a large Γ is replaced by those for a lower floor, if Ω would leave too large a gap.
        """
        looks = self.on_host and not self.kernels and self.columns >= LOOK_MIN_COLUMNS
        if not looks or self.floor <= self._lowest:
            omega, scale = skew_iterate(
                gamma, self.polynomials, half=self.half, kernels=self.kernels
            )
            return self, omega, scale
        run = SkewRun.begin(gamma, self.polynomials[:-1], half=self.half, border=border)
        missing = run.missing() - (self.columns - self.rank)
        times = float(self.bound.expected(run.descent(), missing).amax()) / (self.tolerance or 1.0)
        applied = self
        if times > 1:
            steps = math.ceil(math.log(times, LOWER))
            applied = _going_on(self, max(self.floor / LOWER**steps, self._lowest))
        return applied, run.end(applied.polynomials[len(self.polynomials) - 1 :]), run.size

    @property
    def _lowest(self) -> float:
        return promised(self.tolerance, self.dtype, half=self.half).lowest

    def deeper(self, gap: float | None = None) -> Plan | None:
        """Lower floors, and more care with directions that are hardly there; then float32 for bfloat16; then float64."""
        lowest = self._lowest
        if self.look >= self.looks or (gap is not None and math.isnan(gap)):
            return None
        following = replace(self, look=self.look + 1, double_gram=True)
        # In the columns of W and G the second plan is as careful as float32 can be. It leaves directions of a gradient of low
        # rank longer than one by up to 2e-3, which a smaller tolerance does not allow.
        short = self.tolerance or 0.0
        again = self.whole or (self.look == 1 and short >= FLOAT32_MIN_TOLERANCE)
        if self.floor > lowest and again:
            # What small singular values may be worth is proportional to the floor.
            times = STRIDE if gap is None or not short else max(2 * gap / short, STRIDE)
            return replace(following, floor=max(self.floor / times, lowest))
        if self.half:
            promise = promised(self.tolerance, self.dtype, half=False)
            return replace(following, half=False, accuracy=promise.accuracy)
        if self.dtype is torch.float64:
            return None
        # A gradient of low rank leaves only rounding off W, and in float32 the bound is no better than its root.
        promise = promised(self.tolerance, torch.float64, half=False)
        floor = max(self.floor / 16, promise.lowest)
        return replace(
            following,
            dtype=torch.float64,
            kernels=False,
            accuracy=promise.accuracy,
            floor=floor,
        )

    def _tall(self, point: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, bool]:
        """W at unit radius and G at unit length, both tall, and whether they were wide."""
        w, wide = self.manifold.unit_tall(point) if self.on_host else self.manifold.tall(point)
        g = unit_length(gradient.mT if wide else gradient)
        if self.dtype is not w.dtype:
            w, g = w.to(self.dtype), g.to(self.dtype)
        again = self.look > 1 and isinstance(self.manifold, Stiefel)
        return (nearly_orthogonal_to_orthogonal(w) if again else w), g, wide

    def _lift(self, w: Tensor, g: Tensor) -> Lift:
        if self.whole:
            return WholeLift.of(w, g)
        kind = ReducedLift if isinstance(self.manifold, Stiefel) else TurnedLift
        return kind.of(w, g, again=self.look > 1, double=self.double_gram)

    def _certify(
        self,
        a: Tensor,
        length: Tensor,
        scale: Tensor,
        along: Tensor,
        attained: Tensor | None,
        info: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """A, zero if G has no tangent part or Γ could not be written down; and the gap, 0 or 1 then. NaN stays NaN.

        `scale` is s of 2Γ.
        """
        gap = self.bound.of_direction(length, scale, along, attained)
        gap = torch.add(gap, 1 / scale, alpha=2 * self._lift_rounding).clamp_(0.0, 1.0)
        nothing = scale <= 2 * projection_rounding(a)
        if info is not None:
            failed, zero = (info != 0).reshape(scale.shape), scale * 0
            gap = torch.where(failed, zero + 1, gap)
            a = torch.where(failed, zero, a)
        return a.masked_fill_(nothing, 0.0), gap.masked_fill_(nothing, 0.0)

    def _certify_one(
        self,
        a: Tensor,
        length: Tensor,
        scale: Tensor,
        along: Tensor,
        attained: Tensor | None,
        info: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """`_certify` of one matrix in the host's memory, for which plain numbers cost less than calls."""
        size = float(scale)
        if size <= 2 * projection_rounding(a):
            return a.zero_(), torch.zeros_like(scale)
        if info is not None and bool(info) and not math.isnan(size):
            return a.zero_(), torch.ones_like(scale)
        least = None if attained is None else float(attained)
        gap = self.bound.of_direction(float(length), size, float(along), least)
        gap = gap + 2 * self._lift_rounding / size
        return a, torch.full_like(scale, min(max(gap, 0.0), 1.0) if gap == gap else gap)

    @property
    def _lift_rounding(self) -> float:
        """Γ has the rounding of all of G, also if little of G is tangent: how much of it is counted in the gap."""
        return LIFT_ROUNDING * torch.finfo(self.dtype).eps

    def __str__(self) -> str:
        form = "Γ" if self.whole else "Γ in the columns of W and G"
        precision = "bfloat16" if self.half else str(self.dtype).removeprefix("torch.")
        means = " by the Triton kernels" if self.kernels else ""
        return (
            f"it applies {len(self.polynomials)} polynomials in {precision}{means} on {form}, {self.columns}×{self.columns}, "
            f"for singular values from {self.floor:.1g} of the largest on; the gap is bounded without singular values"
        )


@functools.lru_cache(maxsize=1024)
def _going_on(plan: PolynomialPlan, floor: float) -> PolynomialPlan:
    """The plan for a lower floor that begins with all but the last polynomial of `plan`."""
    return replace(plan, floor=floor, start=plan.polynomials[:-1])


LOOK_MIN_COLUMNS = 256
"""The fewest columns of Γ at which the numbers that tell the gap before the last polynomial cost less than they save."""
LOWER = 3.0
"""How many times lower the floor is that one more polynomial reaches."""
FLOAT32_MIN_TOLERANCE = 5e-3
"""The smallest tolerance for which a second plan in the columns of W and G stays in float32."""
STRIDE = 4.0
"""How many times lower the floor of a deeper plan is, at least. It starts anew, so it should not be the last but one."""
LIFT_ROUNDING = 32.0
"""How many times eps ‖G‖/‖Γ‖ is added to the gap. At the usual tolerance a direction is then tangent to half the digits."""


class Promise(NamedTuple):
    """The accuracy, the gap and the floor that polynomials can be asked for.

    Args:
        accuracy: of the singular values above the floor.
        wanted: the gap.
        lowest: the lowest floor.
    """

    accuracy: float
    wanted: float
    lowest: float


def promised(tolerance: float | None, dtype: torch.dtype, *, half: bool) -> Promise:
    """Nothing below rounding can be asked for, of the gap or of small singular values."""
    eps = torch.finfo(dtype).eps
    wanted = max(tolerance or 0.0, 16 * eps)
    if half:
        return Promise(wanted / 2, wanted, wanted / 15)
    return Promise(math.sqrt(wanted / 12), wanted, min(100 * eps, wanted))
