"""Stiefel with the spectral norm: the problem and its dual, reduced to n×n. Shared by its solvers.

Problem: `min <G, A>` subject to `‖A‖₂ ≤ 1, WᵀA + AᵀW = 0`, with `WᵀW = I`, W and G of shape m×n, m ≥ n.
Dual: `max −‖G + 2WΛ‖_nuc` over symmetric Λ. With `C = WᵀG`, `K = skew(C)`, `G⊥ = G − WC`,
`E = G⊥ᵀG⊥` and `S = sym(C) + 2Λ`:

    G + 2WΛ = G⊥ + W(K + S)        ‖G + 2WΛ‖_nuc = tr M^{1/2},  M = (K+S)ᵀ(K+S) + E.

The gradient is brought to unit Frobenius norm, so results do not depend on its scale; duals are for
that gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.errors import UnsupportedPairError
from modular_manifolds.linalg.matrices import (
    MATRIX,
    divide_safely,
    inner,
    largest_entry,
    more_than_rounding,
    normalise,
)
from modular_manifolds.linalg.symmetric import gram, skew, sym
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.norms.base import Norm
from modular_manifolds.norms.rms_operator import RMSOperator


@dataclass(frozen=True)
class StiefelDual:
    """The tall problem at unit scale, and the way back to the caller's shape.

    W, G and G⊥ have shape (*batch, m, n) and the caller's dtype, `c` and `k` and `e` (*batch, n, n) and float64:
    they hold squares of singular values, which need twice the digits. `wide` says that the caller's
    matrices were transposed; `unit` is the spectral norm of a direction of unit norm.
    """

    w: Tensor
    gradient: Tensor
    across: Tensor
    c: Tensor
    k: Tensor
    e: Tensor
    wide: bool
    unit: float

    @classmethod
    def of(cls, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor) -> StiefelDual:
        if not isinstance(manifold, Stiefel):
            raise UnsupportedPairError(
                "manifold", "must be Stiefel for this solver", manifold, "Use solver='auto'."
            )
        rows, columns = point.shape[-2:]
        wide = rows < columns
        w, g = point / manifold.radius, normalise(gradient, dim=MATRIX)
        w, g = (w.mT, g.mT) if wide else (w, g)
        c = w.mT @ g
        across = g - w @ c
        tangent = torch.cat((skew(c), across), dim=-2)
        there = more_than_rounding(tangent, dim=MATRIX)
        g, c, across = (torch.where(there, each, 0.0) for each in (g, c, across))
        c = c.double()
        unit = math.sqrt(rows / columns) if isinstance(norm, RMSOperator) else 1.0
        return cls(w, g, across, c, skew(c), gram(across.double()), wide, unit)

    def objective(self, multiplier: Tensor) -> Tensor:
        """`‖G + 2WΛ‖_nuc = tr M^{1/2}` for a symmetric Λ, shape (*batch, 1, 1), in float64."""
        b = self.k + sym(self.c) + 2 * sym(multiplier.double())
        # A step that is not scale-free can drive Λ far beyond a tiny gradient: squares must not overflow.
        scale = largest_entry(b).clamp_min(1.0)
        eigenvalues = torch.linalg.eigvalsh(gram(b / scale) + self.e / scale.square())
        return scale * eigenvalues.clamp_min(0).sqrt().sum(dim=-1, keepdim=True).unsqueeze(-1)

    def complete(self, y: Tensor) -> Completion:
        """The steepest of the feasible directions whose part along W is the skew part of `−y`.

        Write `A = WT + Z` with T skew and `WᵀZ = 0`: that is every tangent A. Given T, the ball leaves
        `ZᵀZ ⪯ I − TᵀT = LLᵀ`, and the best such Z is `−G⊥ L (LᵀEL)^{-1/2} Lᵀ`, which descends by
        `tr (LᵀEL)^{1/2}`. Unlike shrinking a direction that is a little too long, this loses nothing
        to first order: near the optimum the gap falls with the square of the error in T.

        `y` has shape (*batch, n, n). Singular values of T above one (rounding) are capped.
        """
        eigenvalues, basis = torch.linalg.eigh(gram(skew(y)))
        cap = eigenvalues.clamp_min(1).rsqrt()
        t = -skew(skew(y) @ ((basis * cap.unsqueeze(-2)) @ basis.mT))
        left = (1 - eigenvalues).clamp(0, 1).sqrt()
        factor = basis * left.unsqueeze(-2)
        values, vectors = torch.linalg.eigh(sym(factor.mT @ self.e @ factor))
        turned = factor @ vectors
        # G⊥ was rounded in the caller's dtype: below this it is noise, for a square W all of it.
        noise = values.shape[-1] * (8 * torch.finfo(self.w.dtype).eps) ** 2
        inverse = torch.where(values > noise, self.inverse_root(values), 0.0)
        fill = (turned * inverse.unsqueeze(-2)) @ turned.mT
        across = (values.clamp_min(0) * inverse).sum(dim=-1, keepdim=True).unsqueeze(-1)
        return Completion(t, fill, across - inner(self.k, t))

    def direction(self, completion: Completion) -> Tensor:
        """The tall direction `WT − G⊥ F` of a completion, feasible to rounding."""
        t, fill = completion.t.to(self.w.dtype), completion.fill.to(self.w.dtype)
        return self.feasible(self.w @ t - self.across @ fill)

    def inverse_root(self, eigenvalues: Tensor, *, least: float = 0.0) -> Tensor:
        """`λ^{-1/2}`; bounded where λ is lost in the rounding of the caller's dtype, zero where all are.

        A direction that the gradient hardly has then gets less than its full step, never more. `least`
        bounds it further, as a part of the largest λ.
        """
        floor = eigenvalues[..., -1:] * max(torch.finfo(self.w.dtype).eps, least)
        bounded = torch.maximum(eigenvalues, floor)
        return torch.where(floor > 0, torch.where(floor > 0, bounded, 1.0).rsqrt(), 0.0)

    def given(self, a: Tensor) -> Tensor:
        """A tall direction of unit spectral norm in the caller's shape and norm."""
        return self.unit * (a.mT if self.wide else a)

    def feasible(self, a: Tensor) -> Tensor:
        """The tangent part of the tall `a`, shrunk to the unit ball where it is outside."""
        tangent = a - self.w @ sym(self.w.mT @ a)
        longest = torch.linalg.eigvalsh(gram(tangent))[..., -1:].unsqueeze(-1).clamp_min(1).sqrt()
        return tangent / longest

    def gap(self, a: Tensor, dual: Tensor) -> Tensor:
        """Relative duality gap, shape (*batch), of a feasible tall `a` and a dual objective.

        Weak duality: `−<G, A> ≤ dual` for every feasible A, so the gap bounds how far from the
        steepest `a` can be.
        """
        primal = -inner(self.gradient, a).double()
        return divide_safely((dual - primal).clamp_min(0), dual)[..., 0, 0]


@dataclass(frozen=True)
class Completion:
    """`A = WT − G⊥ F`: T skew, F = `fill` symmetric, both n×n; `descent` is `−<G, A>`, shape (*batch, 1, 1)."""

    t: Tensor
    fill: Tensor
    descent: Tensor

    def or_better(self, other: Completion | None) -> Completion:
        """Of each matrix of the batch the one that descends further."""
        if other is None:
            return self
        ours = self.descent >= other.descent
        return Completion(
            torch.where(ours, self.t, other.t),
            torch.where(ours, self.fill, other.fill),
            torch.where(ours, self.descent, other.descent),
        )
