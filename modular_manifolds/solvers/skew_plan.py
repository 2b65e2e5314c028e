"""Manifold Muon by polynomials in a skew matrix: tensors in, tensors out."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from modular_manifolds.linalg.backend import certify_by_kernels_
from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.matrices import MATRIX, inner, projection_rounding, unit_length
from modular_manifolds.linalg.newton_schulz import nearly_orthogonal_to_orthogonal, schedule
from modular_manifolds.linalg.polar_express import BF16_MARGIN, FLOAT32_MARGIN, extended
from modular_manifolds.linalg.skew_gap import SkewGap
from modular_manifolds.linalg.skew_newton_schulz import SkewRun, skew_iterate
from modular_manifolds.manifolds.fixed_gram import FixedGram
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.solvers.floors import lower_floor, promised
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.skew_lift import FullLift, Lift, ReducedLift, TurnedLift
from modular_manifolds.solvers.solution import Solution


@dataclass(frozen=True)
class PolynomialPlan(Plan):
    """`A = −p(Ω) W` with Ω by polynomials from Γ, and a bound on its gap. Products of matrices, no decomposition.

    Args:
        manifold: of any radius.
        unit: the spectral norm of the direction.
        rank: a bound on the rank of Γ.
        columns: the number of columns of Γ.
        reduced: Γ is 2n×2n; else it is m×m.
        on_host: points are checked, as their numbers lie in the host's memory.
        dtype: of all products but those of the polynomials.
        double_gram: the part of G off W is factored in float64, if Γ is 2n×2n.
        half: the polynomials' products are in bfloat16.
        kernels: they run on the Triton kernels.
        accuracy: the largest error of a singular value above the floor after the polynomials.
        floor: the smallest such singular value, as a part of the largest.
        attempt: the number of this plan in the sequence of deeper plans, from 1.
        max_attempts: the largest such number.
        start: the polynomials that a run for a higher floor began with.
        polynomials: the polynomials of the iteration, which follow from the settings above.
        bound: the bound on the gap that follows from them.
    """

    manifold: Stiefel | FixedGram
    unit: float
    rank: int
    columns: int
    reduced: bool
    on_host: bool
    dtype: torch.dtype
    double_gram: bool
    half: bool
    kernels: bool
    accuracy: float
    floor: float
    attempt: int
    max_attempts: int
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
        a, gap = self.along(self._lift(w, g))
        a = a.to(point.dtype)
        a = a.mT if wide else a
        a = a if self.unit == 1.0 else a.mul_(self.unit)
        return Solution(a, gap, self.attempt, self.tolerance)

    def along(self, lift: Lift) -> tuple[Tensor, Tensor]:
        """The direction in the shape of the lift's W, of spectral norm 1, and its gap, shape (*batch)."""
        applied, omega, scale = self._sign_of(lift.gamma)
        a, pair, inner_product = lift.direction(omega)
        if self.kernels and inner_product is None:
            bound = self.bound.constants(2 * self._lift_rounding, 2 * projection_rounding(a))
            gap = certify_by_kernels_(
                a, lift.g, omega, scale, bound, pair=pair, info=lift.outcome()
            )
        else:
            omega_norm = torch.linalg.vector_norm(omega, dim=MATRIX, keepdim=True)
            attained = None if pair is None else inner(*pair)
            inner_product = inner(lift.g, a) if inner_product is None else inner_product
            is_single = self.on_host and a.dim() == 2
            certify = applied._certify_one if is_single else applied._certify
            a, gap = certify(a, omega_norm, scale, inner_product, attained, lift.outcome())
        return a, gap.reshape(a.shape[:-2])

    def _sign_of(self, gamma: Tensor) -> tuple[PolynomialPlan, Tensor, Tensor]:
        """Ω and s of 2Γ, and the plan with the polynomials that made it.

        On the host the last polynomial for a large Γ is replaced by those for a lower floor, if Ω would leave too large a gap.
        """
        estimates = self.on_host and not self.kernels and self.columns >= ESTIMATE_MIN_COLUMNS
        if not estimates or self.floor <= self.lowest:
            omega, scale = skew_iterate(
                gamma, self.polynomials, half=self.half, kernels=self.kernels
            )
            return self, omega, scale
        run = SkewRun.begin(gamma, self.polynomials[:-1], half=self.half)
        missing = run.missing() - (self.columns - self.rank)
        gap = float(self.bound.expected_gap(run.descent(), missing).amax())
        excess = gap / (self.tolerance or 1.0)
        applied = self
        if excess > 1:
            steps = math.ceil(math.log(excess, FLOOR_RATIO))
            applied = _with_lower_floor(self, max(self.floor / FLOOR_RATIO**steps, self.lowest))
        return applied, run.end(applied.polynomials[len(self.polynomials) - 1 :]), run.size

    @property
    def lowest(self) -> float:
        """The lowest floor that rounding allows."""
        return promised(self.tolerance, self.dtype, half=self.half).lowest

    def deeper(self, gap: float | None = None) -> Plan | None:
        """Lower floors, and more care with directions that are hardly there; then float32 for bfloat16; then float64."""
        lowest = self.lowest
        if self.attempt >= self.max_attempts or (gap is not None and math.isnan(gap)):
            return None
        following = replace(self, attempt=self.attempt + 1, double_gram=True)
        # In the columns of W and G the second plan is as careful as float32 can be. It leaves directions of a gradient of low
        # rank longer than one by up to 2e-3, which a smaller tolerance does not allow.
        tolerance = self.tolerance or 0.0
        stays = not self.reduced or (self.attempt == 1 and tolerance >= FLOAT32_MIN_TOLERANCE)
        if self.floor > lowest and stays:
            return replace(following, floor=lower_floor(self.floor, lowest, gap, self.tolerance))
        if self.half:
            promise = promised(self.tolerance, self.dtype, half=False)
            return replace(following, half=False, accuracy=promise.accuracy)
        return None if self.dtype is torch.float64 else self.in_float64(self.attempt + 1)

    def finer(self, gap: float | None = None) -> PolynomialPlan | None:
        """A deeper plan for the same lift: a lower floor, then the dtype of the lift; None if there is none."""
        if self.attempt >= self.max_attempts or (gap is not None and math.isnan(gap)):
            return None
        following = replace(self, attempt=self.attempt + 1)
        if self.floor > self.lowest:
            floor = lower_floor(self.floor, self.lowest, gap, self.tolerance)
            return replace(following, floor=floor)
        if not self.half:
            return None
        promise = promised(self.tolerance, self.dtype, half=False)
        return replace(following, half=False, accuracy=promise.accuracy)

    def in_float64(self, attempt: int) -> PolynomialPlan:
        """The plan of this number in float64 with a lower floor.

        A gradient of low rank leaves only rounding off W, and in float32 the bound is no better than its root.
        """
        promise = promised(self.tolerance, torch.float64, half=False)
        return replace(
            self,
            attempt=attempt,
            double_gram=True,
            dtype=torch.float64,
            half=False,
            kernels=False,
            accuracy=promise.accuracy,
            floor=max(self.floor / 16, promise.lowest),
        )

    def _tall(self, point: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, bool]:
        """W at unit radius and G at unit length, both tall, and whether they were wide."""
        w, wide = self.manifold.unit_tall(point) if self.on_host else self.manifold.tall(point)
        g = unit_length(gradient.mT if wide else gradient)
        if self.dtype is not w.dtype:
            w, g = w.to(self.dtype), g.to(self.dtype)
        again = self.attempt > 1 and isinstance(self.manifold, Stiefel)
        return (nearly_orthogonal_to_orthogonal(w) if again else w), g, wide

    def _lift(self, w: Tensor, g: Tensor) -> Lift:
        if not self.reduced:
            return FullLift.of(w, g)
        kind = ReducedLift if isinstance(self.manifold, Stiefel) else TurnedLift
        return kind.of(w, g, reproject=self.attempt > 1, double_gram=self.double_gram)

    def _certify(
        self,
        a: Tensor,
        omega_norm: Tensor,
        scale: Tensor,
        inner_product: Tensor,
        attained: Tensor | None,
        info: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """A, zero if G has no tangent part or Γ could not be written down; and the gap, 0 or 1 then. NaN stays NaN.

        `scale` is s of 2Γ.
        """
        gap = self.bound.of_direction(omega_norm, scale, inner_product, attained)
        gap = torch.add(gap, 1 / scale, alpha=2 * self._lift_rounding).clamp_(0.0, 1.0)
        no_direction = scale <= 2 * projection_rounding(a)
        if info is not None:
            failed, zero = (info != 0).reshape(scale.shape), scale * 0
            gap = torch.where(failed, zero + 1, gap)
            a = torch.where(failed, zero, a)
        return a.masked_fill_(no_direction, 0.0), gap.masked_fill_(no_direction, 0.0)

    def _certify_one(
        self,
        a: Tensor,
        omega_norm: Tensor,
        scale: Tensor,
        inner_product: Tensor,
        attained: Tensor | None,
        info: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """`_certify` of one matrix in the host's memory, for which plain numbers cost less than calls."""
        size = float(scale)
        if size <= 2 * projection_rounding(a):
            return a.zero_(), torch.zeros_like(scale)
        if info is not None and bool(info) and not math.isnan(size):
            return a.zero_(), torch.ones_like(scale)
        value = None if attained is None else float(attained)
        gap = self.bound.of_direction(float(omega_norm), size, float(inner_product), value)
        gap = gap + 2 * self._lift_rounding / size
        return a, torch.full_like(scale, min(max(gap, 0.0), 1.0) if gap == gap else gap)

    @property
    def _lift_rounding(self) -> float:
        """Γ has the rounding of all of G, also if little of G is tangent: how much of it is counted in the gap."""
        return LIFT_ROUNDING * torch.finfo(self.dtype).eps

    def __str__(self) -> str:
        form = "Γ in the columns of W and G" if self.reduced else "Γ"
        precision = "bfloat16" if self.half else str(self.dtype).removeprefix("torch.")
        means = " by the Triton kernels" if self.kernels else ""
        return (
            f"it applies {len(self.polynomials)} polynomials in {precision}{means} on {form}, {self.columns}×{self.columns}, "
            f"for singular values from {self.floor:.1g} of the largest on; the gap is bounded without singular values"
        )


@functools.lru_cache(maxsize=1024)
def _with_lower_floor(plan: PolynomialPlan, floor: float) -> PolynomialPlan:
    """The plan for a lower floor that begins with all but the last polynomial of `plan`."""
    return replace(plan, floor=floor, start=plan.polynomials[:-1])


ESTIMATE_MIN_COLUMNS = 256
"""The fewest columns of Γ at which the numbers that tell the gap before the last polynomial cost less than they save."""
FLOOR_RATIO = 3.0
"""How many times lower the floor is that one more polynomial reaches."""
FLOAT32_MIN_TOLERANCE = 5e-3
"""The smallest tolerance for which plans on a host invert, and a second plan in the columns of W and G stays in float32."""
LIFT_ROUNDING = 32.0
"""How many times eps ‖G‖/‖Γ‖ is added to the gap. At the usual tolerance a direction is then tangent to half the digits."""
