"""Manifold Muon in closed form: one matrix sign of a skew matrix."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modular_manifolds.errors import UnsupportedPairError
from modular_manifolds.linalg.backend import half_is_fast
from modular_manifolds.linalg.host import on_host, spread
from modular_manifolds.linalg.matrices import MATRIX, inner, near_one, projection_rounding
from modular_manifolds.linalg.newton_schulz import (
    Reach,
    nearly_orthogonal_to_orthogonal,
    schedule,
)
from modular_manifolds.linalg.products import gram_product, multiply, plus_product, product
from modular_manifolds.linalg.skew_newton_schulz import skew_iterate
from modular_manifolds.linalg.symmetric import skew
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.norms.base import Norm
from modular_manifolds.norms.rms_operator import RMSOperator, unit
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.solution import Solution, Status


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

    Ω comes from polynomials (in bfloat16 where Γ is large and the machine fast in it), is made exactly skew, and a
    last cubic step in the caller's precision brings every singular value to at most 1: the direction
    is feasible to rounding, whatever the accuracy; of a gradient that lacks a rank, where `R⁻¹` magnifies the
    rounding of G⊥, to half the digits. The gap is bounded without singular values. With p
    the polynomials on Γ/s and f the floor they are made for, every `σ ≥ f s` comes within δ of 1, and within
    `ε = 3δ²/2` after the cubic step. The smaller ones lose at most `c s` each, c the largest
    `σ (1 − p(σ))` below f; and at most `μ s Σ (1 − p²)` together, μ the largest `σ/(1 + p(σ))`, where
    `Σ (1 − p²) ≤ k (1 + δ)² − ‖Ω‖_F²` for Γ of k columns. So `‖Γ‖_nuc ≤ (<Γ, Ω> + lost)/(1 − ε)`. Where
    that is not enough, the floor is lowered, and the work done in float64.

    Args:
        tolerance: on the relative duality gap.
        max_iterations: how often the floor may be lowered, sixteenfold each time.

    Source: for square W the Stiefel page of the Modula documentation; S. Parrott, "On a quotient norm and the
    Sz.-Nagy–Foiaş lifting theorem" (1978) for the extension.
    """

    tolerance: float = 1e-2
    max_iterations: int = 5

    half_the_digits = True
    name = "skew-sign"
    reason = "the steepest direction is −msign(G Wᵀ − W Gᵀ) W, and its gap is known beforehand"

    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        del dual
        if not isinstance(manifold, Stiefel):
            raise UnsupportedPairError(
                "manifold", "must be Stiefel for this solver", manifold, "Use solver='auto'."
            )
        wide = point.shape[-2] < point.shape[-1]
        w = point if manifold.radius == 1.0 else point / manifold.radius
        g = near_one(gradient)
        w, g = (w.mT, g.mT) if wide else (w, g)
        lift = _lift(w, g)
        k = lift.gamma.shape[-1]
        half = self.tolerance >= HALF and k >= LARGE and half_is_fast(w.device.type)
        # Nothing below rounding can be asked for, of the gap or of small singular values.
        eps = torch.finfo(w.dtype).eps
        wanted = max(self.tolerance, 16 * eps)
        # Of a stack the worst matrix decides: one more step is less than all of them once again.
        floor, iterations = wanted / (10 if half or w.dim() > 2 else 5), 0
        while True:
            accuracy = wanted / 2 if half else math.sqrt(wanted / 12)
            polynomials = schedule(accuracy, floor, half=half)
            reach = Reach.of(polynomials, floor)
            off = reach.off + (LENGTHS if half else 0.0)
            omega, size = skew_iterate(lift.gamma, polynomials, half=half)
            a, descents = lift.direction(omega)
            length = torch.linalg.vector_norm(omega, dim=MATRIX, keepdim=True)
            size, length, descent, most = on_host(size, length, *descents)
            missing = k * (1 + off) ** 2 - length**2
            lost = size * np.clip(reach.share * missing, 0, k * reach.each)
            with np.errstate(invalid="ignore"):
                gap = 1 - descent * (1 - 1.5 * off**2) / (most + lost)
            gap += TURNS if half else 0.0
            gap = np.where(lift.there, np.maximum(gap, 0.0), 0.0)
            iterations += 1
            converged = bool((gap <= self.tolerance).all())
            if converged or iterations >= self.max_iterations or floor <= eps:
                break
            # Lower floors take more steps, which rounding in bfloat16 does not bear; and of a gradient of low rank
            # the rest, all rounding in float32, is a bound no better than its root.
            floor, half = max(floor / 16, eps), False
            if w.dtype is not torch.float64:
                w, g = nearly_orthogonal_to_orthogonal(w.double()), g.double()
                eps = torch.finfo(w.dtype).eps
                lift = _lift(w, g)
        a = (a.mT if wide else a).to(point.dtype)
        return Solution(
            unit(point) * a if isinstance(norm, RMSOperator) else a,
            Status.CONVERGED if converged else Status.NOT_CONVERGED,
            iterations,
            torch.from_numpy(gap).to(w.device).reshape(w.shape[:-2]),
            self.tolerance,
        )


LARGE = 512
"""From this many columns on, bfloat16 is the quicker where the machine has hardware for it."""
HALF = 1e-2
"""From this tolerance on, bfloat16 is accurate enough."""
LENGTHS = 0.02
"""What its rounding may add to the distance of a singular value from 1; the cubic step squares that."""
TURNS = 2e-3
"""What its rounding may cost of the descent by turning singular vectors. Seen on matrices of low rank, of singular
values that fall evenly or by a power, and Gaussian ones: at most 1e-3."""


@dataclass(frozen=True)
class _Lift(ABC):
    """Γ in some orthonormal basis, and what a skew Ω there is for W. `there` is False where a gradient has no
    tangent part, only rounding: there Γ is zero.
    """

    w: Tensor  # (*batch, m, n)
    gamma: Tensor  # (*batch, k, k)
    there: NDArray[np.bool_]  # one a matrix

    @abstractmethod
    def direction(self, omega: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """`A = −pΩW` with p the cubic, tall; `−<G, A>` and `<Γ, p(Ω)>` in the units of Γ, one a matrix.

        These two are the same, but for what was added to Γ.
        """


def _lift(w: Tensor, g: Tensor) -> _Lift:
    rows, columns = w.shape[-2:]
    return _Whole.of(w, g) if rows <= 2 * columns else _Reduced.of(w, g)


@dataclass(frozen=True)
class _Whole(_Lift):
    """Γ itself, m×m: the better where m ≤ 2n."""

    g: Tensor  # (*batch, m, n), in the units of Γ

    @classmethod
    def of(cls, w: Tensor, g: Tensor) -> _Whole:
        gamma = skew(multiply(g, w.mT))
        (size,) = on_host(torch.linalg.vector_norm(gamma, ord=torch.inf, dim=MATRIX, keepdim=True))
        there = ~(size <= projection_rounding(w))
        unit = spread(there / np.where(there, size, 1.0), w)
        return cls(w, gamma.mul_(unit), there, g.mul_(unit))

    def direction(self, omega: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        a = _cubic(omega, multiply(omega, self.w)).neg_()
        descent = -inner(self.g, a)
        return a, (descent, descent)


@dataclass(frozen=True)
class _Reduced(_Lift):
    """Γ in the columns of `[W, G⊥R⁻¹]`, 2n×2n: the better where m > 2n."""

    across: Tensor  # G⊥, (*batch, m, n)
    unit: Tensor | float  # what G⊥ is to be multiplied by
    target: Tensor  # K above R, (*batch, 2n, n)
    added: Tensor | float  # to RᵀR

    @classmethod
    def of(cls, w: Tensor, g: Tensor) -> _Reduced:
        c = multiply(w.mT, g)
        across = plus_product(g, w, c, factor=-1.0)
        k = c - c.mT
        along, within, part = on_host(
            *(torch.linalg.vector_norm(x, dim=MATRIX) for x in (c, k, across))
        )
        if bool((OBLIQUE * part < along).any()):
            # Of a gradient that is nearly normal little is left, with rounding of the whole in it.
            across = plus_product(across, w, multiply(w.mT, across), factor=-1.0)
            (part,) = on_host(torch.linalg.vector_norm(across, dim=MATRIX))
        within, least = within / 2, projection_rounding(w) * np.hypot(along, part)
        tangent = np.hypot(within, part)
        there = ~(tangent <= least)
        scale = there / np.where(there, tangent, 1.0)
        # G⊥ alone may be no more than rounding.
        scale_across = np.where(part <= least, 0.0, scale)
        unit = spread(scale_across, w)
        factor, added = _factor(gram_product(across).mul_(spread(scale_across**2, w)))
        k.mul_(spread(scale / 2, w))
        half = factor * 0.5
        corner = torch.zeros_like(half)
        left = torch.cat((k, half), dim=-2)
        gamma = torch.cat((left, torch.cat((half.mT.neg(), corner), dim=-2)), dim=-1)
        return cls(w, gamma, there, across, unit, torch.cat((k, factor), dim=-2), added)

    def direction(self, omega: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        n = self.w.shape[-1]
        column = _cubic(omega, omega[..., :n])
        most = inner(self.target, column)
        t, factor = column[..., :n, :], self.target[..., n:, :]
        fill = torch.linalg.solve_triangular(factor, column[..., n:, :], upper=True)
        # −<G, A> = <K, T> + tr(F E) with F = R⁻¹ Y and E = RᵀR − δI
        trace = fill.diagonal(dim1=-2, dim2=-1).sum(dim=-1, keepdim=True).unsqueeze(-1)
        a = plus_product(
            product(self.w, (t.mT - t).mul_(0.5)), self.across, fill.mul_(self.unit), factor=-1.0
        )
        return a, (most - self.added * trace, most)


OBLIQUE = 8.0
"""Where the part of a gradient across W is not longer than this part of the rest, it is taken again."""


def _cubic(omega: Tensor, once: Tensor) -> Tensor:
    """`(3/2) Ω B + ½ Ω³ B` of `once = Ω B`: a contraction for `‖Ω‖₂ ≤ √3`, for Ω² is negative."""
    return multiply(omega, multiply(omega, once)).mul_(0.5).add_(once, alpha=1.5)


def _factor(e: Tensor) -> tuple[Tensor, Tensor | float]:
    """The upper triangular R with `RᵀR = E + δI`, and δ: what rounding may have taken from E, or took; writes to E.

    Products that are added up lose about `ε ‖E‖_F` in the spectral norm.
    """
    eps = torch.finfo(e.dtype).eps
    (size,) = on_host(torch.linalg.vector_norm(e, dim=MATRIX))
    added, more = np.zeros_like(size), 1.5 * eps * size + eps**2
    for _ in range(4):
        step = spread(more, e)
        e.diagonal(dim1=-2, dim2=-1).add_(step[..., 0] if isinstance(step, Tensor) else step)
        added = added + more
        factor, info = torch.linalg.cholesky_ex(e, upper=True)
        (failed,) = on_host(info)
        if not failed.any():
            return factor, spread(added, e)
        more = np.where(failed > 0, 8 * added, 0.0)
    # Only NaN has no factor then, and NaN must be seen.
    return torch.full_like(e, torch.nan), spread(added, e)
