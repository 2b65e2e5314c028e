"""The steepest tangent direction of one small weight by one decomposition, with few torch calls."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import projection_rounding, scale_unless_moderate
from modular_manifolds.manifolds.fixed_gram import FixedGram
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.solution import Solution


@dataclass(frozen=True)
class DecomposedPlan(Plan):
    """`A = −msign(G Wᵀ − W Gᵀ) W` by one decomposition of a small Γ on the CPU.

    Args:
        manifold: of any radius.
        unit: the spectral norm of the direction.
        fallback: the plan whose deeper plans reach a smaller gap, if the rounding of this precision is too coarse.
    """

    manifold: Stiefel | FixedGram
    unit: float
    fallback: Plan

    decides_on_host = True

    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        del dual
        w, wide = self.manifold.unit_tall(point)
        g, size = scale_unless_moderate(gradient)
        g = g.mT if wide else g
        size = float(torch.linalg.vector_norm(g)) if size is None else size
        a, gap = by_decomposition(w, g, size=size)
        a = a.mT if wide else a
        gaps = torch.tensor(gap, dtype=point.dtype, device=point.device)
        return Solution(a if self.unit == 1.0 else a.mul_(self.unit), gaps, 1, self.tolerance)

    def deeper(self, gap: float | None = None) -> Plan | None:
        return self.fallback.deeper(gap)

    def __str__(self) -> str:
        return "it decomposes Γ once, on the host"


def by_decomposition(w: Tensor, g: Tensor, *, size: float) -> tuple[Tensor, float]:
    """`A = −msign(G Wᵀ − W Gᵀ) W` for one tall matrix, and a bound on its relative duality gap.

    Singular values at the level of rounding are set to zero; the gap is a bound on their sum. If m > 2n, Γ is
    decomposed in an orthonormal basis of the columns of W and G, for any rank of G.

    Args:
        w: the point, tall.
        g: the gradient, same shape.
        size: `‖G‖_F`.
    """
    rows, columns = w.shape
    if not math.isfinite(size):
        return torch.full_like(w, torch.nan), math.nan
    if rows <= 2 * columns:
        return _direction(w, g, size)
    basis, coordinates = torch.linalg.qr(torch.cat((w, g), dim=1))
    a, gap = _direction(coordinates[:, :columns], coordinates[:, columns:], size)
    return torch.mm(basis, a), gap


def _direction(w: Tensor, g: Tensor, size: float) -> tuple[Tensor, float]:
    gamma = torch.mm(g, w.mT)
    gamma = gamma - gamma.mT
    rounding = projection_rounding(w) * size
    u, sigma, vh = torch.linalg.svd(gamma)
    if not float(sigma[-1]) > rounding:
        u = u * (sigma > rounding)
    sign = torch.mm(u, vh)
    lost_sum, nuclear_norm = rounding * gamma.shape[0], float(sigma.sum())
    gap = lost_sum / nuclear_norm if nuclear_norm > lost_sum else 0.0
    # The sign is skew up to rounding; its skew part is taken.
    return torch.mm(sign.mT - sign, w).mul_(0.5), gap
