"""Manifold Muon on one screen: the specification that every solver of Stiefel × Spectral is compared with.

    min <G, A>   subject to   ‖A‖₂ ≤ 1   and   WᵀA + AᵀW = 0,   with WᵀW = I

Singular value decompositions in float64, and nothing of the fast path. W and G have shape (*batch, m, n); wide matrices
are handled as their transposes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def dual_ascent(
    point: Tensor,
    gradient: Tensor,
    *,
    step_size: float = 0.01,
    steps: int = 100,
    tolerance: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Ascend the dual, `max −‖G + 2WΛ‖_nuc` over symmetric Λ, by its gradient `−(WᵀA + AᵀW)`.

    The step size acts on the gradient as it comes, so the result depends on the size of G.

    Returns:
        The direction `−A`, `A = msign(G + 2WΛ)`, tangent only as far as the steps got; and Λ, shape (*batch, n, n).

    Source: J. Bernstein, "Modular Manifolds" (2025), `manifold_muon` in the code published with it.
    """
    w, g, wide = _tall(point, gradient)
    multiplier = -(w.mT @ g + g.mT @ w) / 4
    a = msign(g + 2 * w @ multiplier)
    for step in range(steps):
        deviation = w.mT @ a + a.mT @ w
        if bool((deviation.square().mean(dim=(-2, -1)).sqrt() < tolerance).all()):
            break
        multiplier = multiplier - step_size * (1 - step / steps) * deviation
        a = msign(g + 2 * w @ multiplier)
    return (-a.mT if wide else -a), multiplier


def closed_form(point: Tensor, gradient: Tensor) -> Tensor:
    """The steepest direction, `A = −msign(G Wᵀ − W Gᵀ) W`.

    Source: M. Solonko, A. Molozhavenko, M. Rakhuba, "Muon on the Stiefel Manifold Admits an Exact Closed-Form Update"
    (2026, arXiv 2608.06218).
    """
    w, g, wide = _tall(point, gradient)
    a = -msign(g @ w.mT - w @ g.mT) @ w
    return a.mT if wide else a


def steepest_value(point: Tensor, gradient: Tensor) -> Tensor:
    """The smallest `<G, A>`, which is `−½ ‖G Wᵀ − W Gᵀ‖_nuc`; shape (*batch)."""
    w, g, _ = _tall(point, gradient)
    return -torch.linalg.svdvals(g @ w.mT - w @ g.mT).sum(dim=-1) / 2


def dual_value(point: Tensor, gradient: Tensor, multiplier: Tensor) -> Tensor:
    """`−‖G + 2WΛ‖_nuc` for a symmetric Λ, shape (*batch): no feasible direction goes lower."""
    w, g, _ = _tall(point, gradient)
    return -torch.linalg.svdvals(g + 2 * w @ multiplier).sum(dim=-1)


def msign(x: Tensor) -> Tensor:
    """`U Vᵀ` of the singular value decomposition, without singular values that may be rounding."""
    u, sigma, vh = torch.linalg.svd(x, full_matrices=False)
    rounding = max(x.shape[-2:]) * torch.finfo(x.dtype).eps
    return (u * (sigma > rounding * sigma[..., :1]).unsqueeze(-2)) @ vh


def _tall(point: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, bool]:
    wide = point.shape[-2] < point.shape[-1]
    w, g = point.double(), gradient.double()
    return (w.mT, g.mT, True) if wide else (w, g, False)
