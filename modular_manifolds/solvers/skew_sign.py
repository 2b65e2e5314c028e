"""Manifold Muon in closed form: one matrix sign of a skew matrix."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from modular_manifolds.errors import UnsupportedPairError
from modular_manifolds.linalg.backend import half_is_fast
from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.matrices import (
    MATRIX,
    projection_rounding,
    unit_length,
)
from modular_manifolds.linalg.newton_schulz import nearly_orthogonal_to_orthogonal, schedule
from modular_manifolds.linalg.skew_newton_schulz import skew_iterate
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.skew_decomposed import DecomposedPlan
from modular_manifolds.solvers.skew_gap import SkewGap
from modular_manifolds.solvers.skew_lift import ReducedLift, WholeLift
from modular_manifolds.solvers.solution import Solution


@dataclass(frozen=True)
class SkewSign(Solver):
    """`A = −msign(G Wᵀ − W Gᵀ) W` for a tall W of any shape; a wide one is handled as its transpose.

    Every tangent A is `Ω W` with Ω skew, of shape m×m; and by Parrott's theorem Ω can be chosen with
    `‖Ω‖₂ = ‖A‖₂`. So the unit ball of the tangent space is the image of the unit ball of the skew matrices, where
    `<G, ΩW> = <Γ, Ω>` with `Γ = ½(G Wᵀ − W Gᵀ)`, which the skew `−msign(Γ)` minimises: the value is
    `−‖Γ‖_nuc`.

    Γ has rank 2n at most. Where m > 2n it is written in the orthonormal columns of `[W, G⊥ R⁻¹]`, with
    `C = WᵀG`, `G⊥ = G − WC` and `RᵀR = G⊥ᵀG⊥`:

        Γ = [[skew(C), −½Rᵀ], [½R, 0]]    of shape 2n×2n,    A = −(W Ω₁₁ + G⊥ R⁻¹ Ω₂₁).

    A little is added to `G⊥ᵀG⊥`, as much as rounding may have taken: so the factor exists, and a direction that the
    gradient hardly has gets less than its full step, never more.

    One small matrix on a CPU is decomposed (`DecomposedPlan`). Else Ω comes from polynomials (`PolynomialPlan`; in bfloat16
    if Γ is large and the machine fast in it), is made exactly skew, and a last cubic step in the caller's precision
    brings every singular value to at most 1: the direction is feasible to rounding, whatever the accuracy; if the
    gradient lacks a rank, to half the digits, because `R⁻¹` magnifies the rounding of G⊥. `SkewGap` bounds the gap without
    singular values. A deeper plan lowers the floor of the polynomials, and at last computes in float64.

    Args:
        tolerance: on the relative duality gap.
        max_iterations: how many plans may be tried; each lowers the floor threefold.

    Source: M. Solonko, A. Molozhavenko, M. Rakhuba, "Muon on the Stiefel Manifold Admits an Exact Closed-Form Update"
    (2026, arXiv 2608.06218): the formula, its proof and the form of rank 2n. For square W, the Stiefel page of the
    Modula documentation. The extension of Ω is S. Parrott, "On a quotient norm and the Sz.-Nagy–Foiaş lifting
    theorem" (1978), in the form of C. Davis, W. Kahan, H. Weinberger, "Norm-preserving dilations and their
    applications to optimal error bounds" (1982).
    """

    tolerance: float = 1e-2
    max_iterations: int = 16

    half_the_digits = True
    name = "skew-sign"
    reason = "the steepest direction is −msign(G Wᵀ − W Gᵀ) W, and its gap is known beforehand"

    def plan(
        self,
        manifold: Manifold,
        norm: Norm,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device_type: str,
    ) -> Plan:
        if not isinstance(manifold, Stiefel):
            raise UnsupportedPairError(
                "manifold", "must be Stiefel for this solver", manifold, "Use solver='auto'."
            )
        return _plan(self, manifold, norm.spectral_unit(shape), tuple(shape), dtype, device_type)


@functools.lru_cache(maxsize=1024)
def _plan(
    solver: SkewSign,
    manifold: Stiefel,
    unit: float,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device_type: str,
) -> Plan:
    rows, columns = sorted(shape[-2:], reverse=True)
    on_host = device_type == "cpu"
    # Up to here the products of one m×m matrix cost less than the calls that would make it smaller.
    whole = rows <= 2 * columns or (on_host and len(shape) == 2 and rows <= WHOLE_MAX_ROWS)
    k, eps = rows if whole else 2 * columns, torch.finfo(dtype).eps
    half = (
        dtype is torch.float32
        and solver.tolerance >= HALF_MIN_TOLERANCE
        and k >= HALF_MIN_COLUMNS
        and half_is_fast(device_type)
    )
    # Nothing below rounding can be asked for, of the gap or of small singular values.
    wanted = max(solver.tolerance, 16 * eps)
    # In a stack the worst matrix decides, and many singular values of a large one are small.
    many = not on_host or k >= HALF_MIN_COLUMNS or len(shape) > 2
    first = 10 if half else 5 if many else 1
    lowest = wanted / 15 if half else min(100 * eps, wanted)
    plan = PolynomialPlan(
        solver.tolerance,
        manifold,
        unit,
        rank=min(rows, 2 * columns),
        columns=k,
        whole=whole,
        half=half,
        accuracy=wanted / 2 if half else math.sqrt(wanted / 12),
        floor=max(wanted / first, lowest),
        lowest=lowest,
        dtype=dtype,
        on_host=on_host,
        looks=1,
        max_looks=max(1, solver.max_iterations),
    )
    if on_host and len(shape) == 2 and min(rows, 2 * columns) <= DECOMPOSE_MAX_COLUMNS:
        return DecomposedPlan(solver.tolerance, manifold, unit, plan)
    return plan


DECOMPOSE_MAX_COLUMNS = 32
"""Up to so many columns of Γ one decomposition costs less than the calls of all the products."""
WHOLE_MAX_ROWS = 96
"""Up to so many rows one Γ of m×m costs less than the calls that make it smaller."""
HALF_MIN_COLUMNS = 512
"""From this many columns of Γ on, bfloat16 is the quicker if the machine has hardware for it."""
HALF_MIN_TOLERANCE = 1e-2
"""From this tolerance on, bfloat16 is accurate enough."""


LIFT_ROUNDING = 32.0
"""How many times eps ‖G‖/‖Γ‖ is added to the gap. At the usual tolerance a direction is then tangent to half the digits."""


@dataclass(frozen=True)
class PolynomialPlan(Plan):
    """`A = −p(Ω) W` with Ω by polynomials from Γ, and a bound on its gap. Products of matrices, no decomposition.

    Args:
        manifold: Stiefel, of any radius.
        unit: the spectral norm of the direction.
        rank, columns: of Γ; its rank is at most this.
        whole: Γ is m×m; else it is 2n×2n.
        half: the polynomials' products are in bfloat16.
        accuracy, floor: what the polynomials reach, and for singular values of which part of the largest.
        lowest: deeper plans do not lower the floor below it.
        dtype: of the rest.
        on_host: the numbers lie in the host's memory. Points are checked there.
        looks, max_looks: which plan this is of how many.
        polynomials, bound: what follows from these for the iteration and for its gap.
    """

    manifold: Stiefel
    unit: float
    rank: int
    columns: int
    whole: bool
    half: bool
    accuracy: float
    floor: float
    lowest: float
    dtype: torch.dtype
    on_host: bool
    looks: int
    max_looks: int
    polynomials: tuple[Polynomial, ...] = field(init=False)
    bound: SkewGap = field(init=False)

    decides_on_host = True

    def __post_init__(self) -> None:
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
        careful = self.looks > 1
        lift = WholeLift.of(w, g) if self.whole else ReducedLift.of(w, g, careful=careful)
        omega, scale = skew_iterate(lift.gamma, self.polynomials, half=self.half)
        length = torch.linalg.vector_norm(omega, dim=MATRIX, keepdim=True)
        a, along, attained = lift.direction(omega)
        # Γ was given twice.
        scale = scale * 0.5
        gap = self.bound.of_direction(length, scale, along, attained)
        # Γ has the rounding of all of G, also if little of G is tangent.
        gap = gap.add_(1 / scale, alpha=LIFT_ROUNDING * torch.finfo(w.dtype).eps).clamp_(0.0, 1.0)
        zero = scale * 0  # NaN stays NaN
        nothing = scale <= projection_rounding(w)
        failed = lift.failed()
        if failed is not None:
            gap = torch.where(failed, zero + 1, gap)
            a = torch.where(failed, zero, a)
        a, gap = torch.where(nothing, zero, a), gap.masked_fill_(nothing, 0.0)
        a = a.mT if wide else a
        a = a.to(point.dtype)
        return Solution(
            a if self.unit == 1.0 else a.mul_(self.unit),
            gap.reshape(point.shape[:-2]),
            self.looks,
            self.tolerance,
        )

    def deeper(self) -> Plan | None:
        if self.looks >= self.max_looks:
            return None
        following = replace(self, looks=self.looks + 1)
        if self.floor > self.lowest:
            return replace(following, floor=max(self.floor / 3, self.lowest))
        if self.dtype is torch.float64:
            return None
        if self.half:
            wanted = 12 * self.accuracy / 6
            return replace(
                following,
                half=False,
                accuracy=math.sqrt(wanted / 12),
                lowest=min(100 * torch.finfo(self.dtype).eps, wanted),
            )
        # Of a gradient of low rank only rounding is left off W, and in float32 the bound is no better than its root.
        eps = torch.finfo(torch.float64).eps
        wanted = max(self.tolerance or 0.0, 16 * eps)
        return replace(
            following,
            half=False,
            accuracy=math.sqrt(wanted / 12),
            floor=self.floor / 16,
            lowest=min(100 * eps, wanted),
            dtype=torch.float64,
        )

    def _tall(self, point: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, bool]:
        """W at unit radius and G at unit length, both tall, and whether they were wide."""
        w, wide = self.manifold.unit_tall(point) if self.on_host else self.manifold.tall(point)
        g = unit_length(gradient.mT if wide else gradient)
        if self.dtype is not w.dtype:
            w, g = w.to(self.dtype), g.to(self.dtype)
        return (nearly_orthogonal_to_orthogonal(w) if self.looks > 1 else w), g, wide

    def __str__(self) -> str:
        form = "Γ" if self.whole else "Γ in the columns of W and G"
        precision = "bfloat16" if self.half else str(self.dtype).removeprefix("torch.")
        return (
            f"{len(self.polynomials)} polynomials in {precision} on {form}, {self.columns}×{self.columns}, "
            f"for singular values from {self.floor:.1g} of the largest on; the gap is bounded without singular values"
        )
