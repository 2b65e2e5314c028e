"""A solver for the sphere with the Max norm: the non-Riemannian sphere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX, exceeds_rounding, normalise
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.solution import Solution, relative_gap


@dataclass(frozen=True)
class WeightedMedian(Solver):
    """A solver of `min <g, a>` subject to `max |a_i| ≤ 1` and `<w, a> = 0`, for Sphere × Max and flattened W.

    The dual is `max over λ of −Σ |g_i − λ w_i|`. Its solution λ is the median of `g_i/w_i` with weights `|w_i|`.
    Then `a_i = −sign(g_i − λ w_i)`. Entries with `g_i = λ w_i` share one value of `a_i sign(w_i)` in [−1, 1] that
    makes `<w, a>` zero. One sort: n log n operations.

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
        return WeightedMedianPlan(FORMULA_MAX_GAP, manifold)


FORMULA_MAX_GAP = 1e-6
"""The tolerance of the relative gap: the formula is exact, so in float64 its gap is smaller."""


@dataclass(frozen=True)
class WeightedMedianPlan(Plan):
    """A plan that sorts the ratios of gradient and weight once, in float64."""

    manifold: Manifold

    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        del dual
        g = normalise(gradient, dim=MATRIX)
        has_tangent_part = exceeds_rounding(self.manifold.tangent(point, g), dim=MATRIX)
        w, g = normalise(point, dim=MATRIX).double().flatten(-2), g.double().flatten(-2)
        weight = w.abs()
        ratio = torch.where(weight > 0, g / torch.where(weight > 0, w, 1.0), torch.inf)
        sorted_ratio, order = ratio.sort(dim=-1)
        # Integers are summed, because a cumulative sum of floats on a GPU differs from run to run.
        fraction = weight / weight.sum(dim=-1, keepdim=True).clamp_min(1.0)
        cumulative = (fraction.gather(-1, order) * 2.0**60).long().cumsum(dim=-1)
        half = cumulative.narrow(-1, cumulative.shape[-1] - 1, 1) // 2
        median_index = (cumulative < half).sum(dim=-1, keepdim=True).clamp_max(w.shape[-1] - 1)
        multiplier = sorted_ratio.gather(-1, median_index)
        offset = torch.where(weight > 0, ratio - multiplier, 0.0)
        # −sign(g − λw) = −sign(w) sign(g/w − λ); entries with ratio λ share the residual of the constraint.
        a = torch.where(weight > 0, -w.sign() * offset.sign(), -g.sign())
        tied = (weight > 0) & (offset == 0)
        residual = -(w * a).sum(dim=-1, keepdim=True)
        share = residual / torch.where(tied, weight, 0.0).sum(dim=-1, keepdim=True)
        a = torch.where(tied, share.clamp(-1, 1) * w.sign(), a)
        objective = (g - torch.where(multiplier.isfinite(), multiplier, 0.0) * w).abs().sum(dim=-1)
        descent = -(g * a).sum(dim=-1)
        gap = relative_gap(
            descent.unsqueeze(-1).unsqueeze(-1), objective.unsqueeze(-1).unsqueeze(-1)
        )
        # NaN would be treated like an entry with w = 0.
        nan = (g + w).isnan().any(dim=-1, keepdim=True)
        a, gap = torch.where(nan, torch.nan, a), torch.where(nan.squeeze(-1), torch.nan, gap)
        direction = torch.where(has_tangent_part, a.reshape(gradient.shape).to(gradient.dtype), 0.0)
        gap = torch.where(has_tangent_part.squeeze(-1).squeeze(-1), gap, 0.0).to(gradient.dtype)
        return Solution(direction, gap, tolerance=self.tolerance)

    def __str__(self) -> str:
        return "it sorts the ratios of gradient and weight once, in float64"
