"""The sphere with the largest entry as norm: a non-Riemannian sphere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX, more_than_rounding, normalise
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.solution import Solution, relative_gap


@dataclass(frozen=True)
class WeightedMedian(Solver):
    """Sphere × Max: `min <g, a>` subject to `max |a_i| ≤ 1` and `<w, a> = 0`, entries of W in a row.

    The dual is `max over λ of −Σ |g_i − λ w_i|`, solved by λ, the median of `g_i/w_i` with weights `|w_i|`.
    Then `a_i = −sign(g_i − λ w_i)`, but the entries that λ stands at share one fraction between −1 and 1
    that makes `<w, a>` zero. Sorted once, so n log n operations.

    Source: Bernstein, "Modular Manifolds" (2025), which names the non-Riemannian sphere.
    """

    name = "weighted-median"
    reason = (
        "one multiplier is left, and it is the weighted median of the ratios of gradient and weight"
    )

    def plan(
        self,
        manifold: Manifold,
        norm: Norm,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device_type: str,
    ) -> Plan:
        del norm, shape, dtype, device_type
        return WeightedMedianPlan(ROUNDING, manifold)


ROUNDING = 1e-6
"""The gap of an exact formula in float64 is below this."""


@dataclass(frozen=True)
class WeightedMedianPlan(Plan):
    """One sort of the ratios of gradient and weight, in float64."""

    manifold: Manifold

    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        del dual
        g = normalise(gradient, dim=MATRIX)
        has_tangent_part = more_than_rounding(self.manifold.tangent(point, g), dim=MATRIX)
        w, g = normalise(point, dim=MATRIX).double().flatten(-2), g.double().flatten(-2)
        weight = w.abs()
        ratio = torch.where(weight > 0, g / torch.where(weight > 0, w, 1.0), torch.inf)
        ordered, order = ratio.sort(dim=-1)
        # Summed as whole numbers: on a GPU a running sum of floats is not the same at every run.
        whole = weight / weight.sum(dim=-1, keepdim=True).clamp_min(1.0)
        reached = (whole.gather(-1, order) * 2.0**60).long().cumsum(dim=-1)
        half = reached.narrow(-1, reached.shape[-1] - 1, 1) // 2
        at = (reached < half).sum(dim=-1, keepdim=True).clamp_max(w.shape[-1] - 1)
        multiplier = ordered.gather(-1, at)
        away = torch.where(weight > 0, ratio - multiplier, 0.0)
        # −sign(g − λw) = −sign(w) sign(g/w − λ); entries at λ itself share what is missing.
        a = torch.where(weight > 0, -w.sign() * away.sign(), -g.sign())
        tied = (weight > 0) & (away == 0)
        missing = -(w * a).sum(dim=-1, keepdim=True)
        share = missing / torch.where(tied, weight, 0.0).sum(dim=-1, keepdim=True)
        a = torch.where(tied, share.clamp(-1, 1) * w.sign(), a)
        objective = (g - torch.where(multiplier.isfinite(), multiplier, 0.0) * w).abs().sum(dim=-1)
        descent = -(g * a).sum(dim=-1)
        gap = relative_gap(
            descent.unsqueeze(-1).unsqueeze(-1), objective.unsqueeze(-1).unsqueeze(-1)
        )
        # NaN would look like an entry of no ratio.
        nan = (g + w).isnan().any(dim=-1, keepdim=True)
        a, gap = torch.where(nan, torch.nan, a), torch.where(nan.squeeze(-1), torch.nan, gap)
        direction = torch.where(has_tangent_part, a.reshape(gradient.shape).to(gradient.dtype), 0.0)
        gap = torch.where(has_tangent_part.squeeze(-1).squeeze(-1), gap, 0.0).to(gradient.dtype)
        return Solution(direction, gap, tolerance=self.tolerance)

    def __str__(self) -> str:
        return "it sorts the ratios of gradient and weight once, in float64"
