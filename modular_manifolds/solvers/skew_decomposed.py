"""The steepest tangent direction of one small Stiefel weight by decompositions: few calls of torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import projection_rounding


def by_decomposition(w: Tensor, g: Tensor, *, size: float) -> tuple[Tensor, float]:
    """`A = −msign(G Wᵀ − W Gᵀ) W` of one tall matrix, and a bound on its relative duality gap.

    Singular values that may be rounding give no direction: the gap is what they may add up to. Where m > 2n
    it is found in an orthonormal basis of the columns of W and G, whatever the rank of G.

    Args:
        w, g: tall.
        size: `‖G‖_F`.
    """
    rows, columns = w.shape
    if not math.isfinite(size):
        return torch.full_like(w, torch.nan), math.nan
    if rows <= 2 * columns:
        return _direction(w, g, size)
    basis, inside = torch.linalg.qr(torch.cat((w, g), dim=1))
    a, gap = _direction(inside[:, :columns], inside[:, columns:], size)
    return torch.mm(basis, a), gap


def _direction(w: Tensor, g: Tensor, size: float) -> tuple[Tensor, float]:
    gamma = torch.mm(g, w.mT)
    gamma = gamma - gamma.mT
    least = projection_rounding(w) * size
    u, sigma, vh = torch.linalg.svd(gamma)
    if not float(sigma[-1]) > least:
        u = u * (sigma > least)
    sign = torch.mm(u, vh)
    lost, total = least * gamma.shape[0], float(sigma.sum())
    gap = lost / total if total > lost else 0.0
    # Skew but for rounding, which is taken out.
    return torch.mm(sign.mT - sign, w).mul_(0.5), gap
