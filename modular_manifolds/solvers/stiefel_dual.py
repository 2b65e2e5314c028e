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
from modular_manifolds.linalg.matrices import MATRIX, divide_safely, inner, normalise
from modular_manifolds.linalg.symmetric import gram, skew, sym
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.norms.base import Norm
from modular_manifolds.norms.rms_operator import RMSOperator


@dataclass(frozen=True)
class StiefelDual:
    """The tall problem at unit scale, and the way back to the caller's shape.

    W, G⊥ have shape (*batch, m, n), `c` and `k` and `e` (*batch, n, n); `wide` says that the caller's
    matrices were transposed; `unit` is the spectral norm of a direction of unit norm.
    """

    w: Tensor
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
        unit = math.sqrt(rows / columns) if isinstance(norm, RMSOperator) else 1.0
        return cls(w, across, c, skew(c), gram(across), wide, unit)

    def direction(self, a: Tensor) -> Tensor:
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
        primal = -(inner(self.across, a) + inner(self.c, self.w.mT @ a))
        return divide_safely((dual - primal).clamp_min(0), dual)[..., 0, 0]
