"""Stiefel with the spectral norm: the problem and its dual, reduced to n×n. Shared by its solvers.

Problem: `min <G, A>` subject to `‖A‖₂ ≤ 1, WᵀA + AᵀW = 0`, with `WᵀW = I`, W and G of shape m×n, m ≥ n.
Dual: `max −‖G + 2WΛ‖_nuc` over symmetric Λ. With `C = WᵀG`, `K = skew(C)`, `G⊥ = G − WC`,
`E = G⊥ᵀG⊥` and `S = sym(C) + 2Λ`:

    G + 2WΛ = G⊥ + W(K + S)        ‖G + 2WΛ‖_nuc = tr M^{1/2},  M = (K+S)ᵀ(K+S) + E.

The gradient is brought to unit Frobenius norm, so results do not depend on its scale; duals are for
that gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.errors import NonFiniteError, UnsupportedPairError
from modular_manifolds.linalg.matrices import (
    MATRIX,
    inner,
    largest_entry,
    projection_rounding,
    scale_exactly,
)
from modular_manifolds.linalg.products import plus_product
from modular_manifolds.linalg.symmetric import gram, sym
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.solution import SMALLEST_DIVISOR, relative_gap


@dataclass(frozen=True)
class StiefelDual:
    """The tall problem at unit scale, and the data to return to the caller's shape.

    W and G⊥ have shape (*batch, m, n) and the caller's dtype, `c`, `k` and `e` (*batch, n, n) and float64:
    they hold squares of singular values, which need twice the digits. `tall` is G divided by its largest
    entry, and `across` is its part G⊥ normal to W; `scale` normalises both (to zero if they are rounding), so that no tall
    matrix needs scaling. `along` is `‖K‖²/(‖K‖² + ‖G⊥‖²)`, shape (*batch, 1, 1). `wide` tells whether the caller's matrices were transposed; `unit` is
    the spectral norm of a direction of unit norm.
    """

    w: Tensor
    tall: Tensor
    across: Tensor
    scale: Tensor
    c: Tensor
    k: Tensor
    e: Tensor
    along: Tensor
    wide: bool
    unit: float

    @classmethod
    def of(cls, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor) -> StiefelDual:
        if not isinstance(manifold, Stiefel):
            raise UnsupportedPairError(
                "manifold", "must be Stiefel for this solver", manifold, "Use solver='auto'."
            )
        w, wide = manifold.unit_tall(point)
        g = scale_exactly(gradient)
        g = g.mT if wide else g
        c = w.mT @ g
        across = plus_product(g, w, c, factor=-1.0)
        # E holds squares of singular values, which need twice the digits.
        c, precise = c.double(), across.double()
        e = precise.mT @ precise
        k = skew(c)
        squared = e.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
        within = k.square().sum(dim=MATRIX, keepdim=True)
        whole = (squared + c.square().sum(dim=MATRIX, keepdim=True)).clamp_min(SMALLEST_DIVISOR)
        if not bool(torch.isfinite(whole).all()):
            raise NonFiniteError(
                "gradient", "must be finite", "NaN or infinity", "Look where it came from."
            )
        tangent = squared + within
        # A gradient without a tangent part leaves rounding, which is no direction.
        there = ~(tangent <= projection_rounding(w) ** 2 * whole)
        scale = there / whole.sqrt()
        return cls(
            w,
            g,
            across,
            scale,
            c * scale,
            k * scale,
            e * scale.square(),
            within / tangent.clamp_min(SMALLEST_DIVISOR),
            wide,
            norm.spectral_unit(tuple(point.shape)),
        )

    @property
    def gradient(self) -> Tensor:
        """The tall G at unit Frobenius norm."""
        return self.tall * self.scale.to(self.tall.dtype)

    @property
    def precision(self) -> float:
        """The distance from 1 to the next number of the caller's dtype."""
        return torch.finfo(self.w.dtype).eps

    def objective(self, multiplier: Tensor) -> Tensor:
        """`‖G + 2WΛ‖_nuc = tr M^{1/2}` for a symmetric Λ, shape (*batch, 1, 1), in float64."""
        b = self.k + sym(self.c) + 2 * sym(multiplier.double())
        # A step that is not scale-free can drive Λ far beyond a tiny gradient: squares must not overflow.
        scale = largest_entry(b).clamp_min(1.0)
        eigenvalues = torch.linalg.eigvalsh(gram(b / scale) + self.e / scale.square())
        return scale * eigenvalues.clamp_min(0).sqrt().sum(dim=-1, keepdim=True).unsqueeze(-1)

    def given(self, a: Tensor) -> Tensor:
        """A tall direction of unit spectral norm in the caller's shape and norm."""
        turned = a.mT if self.wide else a
        return turned if self.unit == 1.0 else self.unit * turned

    def feasible(self, a: Tensor) -> Tensor:
        """The tangent part of the tall `a`, shrunk to the unit ball if it is outside."""
        tangent = a - self.w @ sym(self.w.mT @ a)
        longest = torch.linalg.eigvalsh(gram(tangent))[..., -1:].unsqueeze(-1).clamp_min(1).sqrt()
        return tangent / longest

    def certified(self, a: Tensor, multiplier: Tensor) -> tuple[Tensor, Tensor]:
        """A feasible tall direction that goes downhill, and its relative duality gap, shape (*batch).

        It is `a`, or zero if that goes uphill. Weak duality: `−<G, A> ≤ objective(multiplier)` for every feasible A, so
        the gap bounds how far from the steepest it can be.
        """
        primal = -inner(self.gradient, a).double()
        return torch.where(primal < 0, 0.0, a), relative_gap(primal, self.objective(multiplier))


def skew(x: Tensor) -> Tensor:
    """`(X − Xᵀ)/2`."""
    return (x - x.mT).mul_(0.5)


def inverse_root(eigenvalues: Tensor, least: float) -> Tensor:
    """`λ^{-1/2}` with every λ taken to be at least this part of the largest.

    A direction that the gradient hardly has then gets less than its full step, never more.
    """
    largest = eigenvalues.amax(dim=-1, keepdim=True)
    return torch.maximum(eigenvalues, least * largest).clamp_min(SMALLEST_DIVISOR).rsqrt()


def multiplier_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of Λ for weights of `shape` (*batch, m, n): (*batch, k, k) with k the smaller side."""
    side = min(shape[-2:])
    return (*shape[:-2], side, side)
