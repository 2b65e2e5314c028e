"""One multiplier by Gram matrices: every trial decomposes one n×n matrix, however many rows the weight has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from modular_manifolds.errors import NonFiniteError
from modular_manifolds.linalg.matrices import inner, projection_rounding
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.solvers.bracketing_plan import BracketingPlan
from modular_manifolds.solvers.search import Line, Search, outcome, search
from modular_manifolds.solvers.solution import Solution

EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class ByGrams(BracketingPlan):
    """A plan for weights in float32 on the CPU: eigendecompositions of n×n matrices in float64.

    Let `X = T + λN` be tall, m×n. Three products give every `XᵀX = TᵀT + λ(TᵀN + NᵀT) + λ²NᵀN`. With `XᵀX = V diag(μ) Vᵀ`
    and a bound e on its rounding, `P = V diag(μ + e)^{-1/2} Vᵀ`, the direction `A = −XP` lies in the ball, and
    `Σ √(μ + e)` is at least φ(λ). Both, the slope of the line and the second derivative of φ are n×n computations; the
    direction is made once, from the P of the two ends. A singular value of X below √e, about 1e-7, comes out between 0
    and 1. Therefore this plan serves tolerances from 1e-3 on.
    """

    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        problem = _problem_of(self.manifold, point, gradient)
        searches = problem.searches(dual)
        rounds = search(
            searches,
            problem.trial,
            tolerance=self.tolerance or 0.0,
            rounds=self.max_iterations,
            meet_every=1,
        )
        a = problem.direction(searches, self.length).to(gradient.dtype).reshape(point.shape)
        gap, starts = outcome(searches, point)
        return Solution(a, gap, rounds, self.tolerance, starts)

    def __str__(self) -> str:
        return (
            f"it closes the bracket by decompositions of Gram matrices in float64, {self.max_iterations} at most, "
            f"until the gap is {self.tolerance:g}"
        )


@dataclass(frozen=True)
class Problem:
    """`φ(λ) = ‖T + λN‖_nuc` for a stack of tall matrices `T = aG + bN`, by Gram matrices; all tensors are in float64.

    Args:
        g: G, shape (batch, m, n).
        n: a multiple of N, of the same shape.
        of_g: a, shape (batch, 1, 1).
        of_n: b, of the same shape.
        scale: N over that multiple, of the same shape.
        tt: `TᵀT`, shape (batch, n, n); its trace is 1, or 0 if there is no tangent part.
        tn: `TᵀN`, of the same shape.
        nn: `NᵀN`, of the same shape.
        nu: ν, at least ‖N‖₂, shape (batch, 1).
        wide: whether the weights are the transposes of these matrices.
        trials: the eigenvectors V and the `√(μ + e)` of every trial, shapes (rows, n, n) and (rows, n).
    """

    g: Tensor
    n: Tensor
    of_g: Tensor
    of_n: Tensor
    scale: Tensor
    tt: Tensor
    tn: Tensor
    nn: Tensor
    nu: Tensor
    wide: bool
    trials: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def searches(self, dual: Tensor | None) -> list[Search]:
        """The brackets by the lines of `A = ∓N/ν`, ν at least ‖N‖₂; `φ(0) ≤ √n ‖T‖_F` bounds the minimum."""
        best = (self.nn.shape[-1] * _trace(self.tt)).sqrt()
        numbers = [best, self.nu, _trace(self.tn), _trace(self.nn)]
        if dual is not None:
            numbers += dual.double().reshape(-1, 2).unbind(-1)
        return [
            Search(
                Line(-each[0] * each[1], -each[2] / each[1], -each[3] / each[1]),
                Line(each[0] * each[1], each[2] / each[1], each[3] / each[1]),
                each[0],
                *each[4:],
            )
            for each in torch.stack([x.flatten() for x in numbers], dim=-1).tolist()
        ]

    def trial(self, rows: Sequence[int], multipliers: Sequence[float]) -> Tensor:
        """The start and the slope of the line at λ, a bound on φ(λ), and Newton's next λ, for some rows of the stack."""
        tt, tn, nn = self.tt, self.tn, self.nn
        if len(rows) < len(tt):
            index = torch.tensor(rows, device=tt.device)
            tt, tn, nn = tt[index], tn[index], nn[index]
        at = tt.new_tensor(multipliers)
        factor = at[:, None, None]
        xn = torch.addcmul(tn, nn, factor)
        gram = torch.addcmul(torch.addcmul(tt, tn.mT, factor), xn, factor)
        values, v = torch.linalg.eigh(gram)
        rounding = ROUNDING * EPS * tt.shape[-1] ** 0.5 * (1 + at.square())
        sigma = values.clamp_(min=0).add(rounding[:, None]).sqrt_()
        self.trials.append((v, sigma))
        turned = v.mT @ xn @ v
        slope = (turned.diagonal(dim1=-2, dim2=-1) / sigma).sum(dim=-1)
        start = (values / sigma).sum(dim=-1) - at * slope
        # In the basis V, an entry of the derivative of P is that of XᵀN + NᵀX over −σᵢσⱼ(σᵢ + σⱼ).
        row = sigma.unsqueeze(-1)
        turned = (turned + turned.mT).square_() / (row * row.mT * (row + row.mT))
        curvature = ((v * (nn @ v)).sum(dim=-2) / sigma).sum(dim=-1) - turned.sum((-2, -1)) / 2
        newton = at - slope / curvature.clamp_(min=SMALLEST_CURVATURE)
        return torch.stack((start, slope, sigma.sum(dim=-1), newton), dim=-1)

    def direction(self, searches: Sequence[Search], length: float) -> Tensor:
        """The mix of the directions of the ends, `−XP` or `∓N/ν`, times a length, in the shape of the weights."""
        weights = [each.weight for each in searches]
        of_t, of_n = torch.zeros_like(self.tt), torch.zeros_like(self.tt)
        lows, highs = [each.low for each in searches], [each.high for each in searches]
        for lines, shares, sign in ((lows, weights, 1.0), (highs, [1 - w for w in weights], -1.0)):
            share = length * of_t.new_tensor(shares)[:, None, None]
            at = of_t.new_tensor([each.multiplier for each in lines])[:, None, None]
            untried = of_t.new_tensor([float(each.trial is None) for each in lines])[:, None]
            p = self._roots(lines).mul_(-share)
            of_t += p
            of_n += at * p
            diagonal = of_n.diagonal(dim1=-2, dim2=-1)
            diagonal += sign * untried * share.squeeze(-1) / self.nu
        of_n = self.scale * (of_n + self.of_n * of_t)
        of_t = self.of_g * of_t
        if self.wide:
            # The product has the layout of the weights.
            return torch.baddbmm(of_n.mT @ self.n.mT, of_t.mT, self.g.mT)
        return torch.baddbmm(self.n @ of_n, self.g, of_t)

    def _roots(self, lines: Sequence[Line]) -> Tensor:
        """The P of trials, zero for lines that were known before."""
        nothing = torch.zeros_like(self.tt[0]), torch.ones_like(self.tt[0, 0])
        pairs = [nothing if each.trial is None else self._trial(*each.trial) for each in lines]
        v, sigma = (torch.stack(each) for each in zip(*pairs, strict=True))
        return (v / sigma.unsqueeze(-2)) @ v.mT

    def _trial(self, i: int, row: int) -> tuple[Tensor, Tensor]:
        v, sigma = self.trials[i]
        return v[row], sigma[row]


def _problem_of(manifold: Manifold, point: Tensor, gradient: Tensor) -> Problem:
    """The problem of a stack of weights and their gradients, with one batch dimension."""
    normal = manifold.unit_normal(point.double())
    n, g = (x.reshape(-1, *x.shape[-2:]) for x in (normal, gradient.to(normal.dtype, copy=True)))
    wide = point.shape[-2] < point.shape[-1]
    n, g = (x.mT if wide else x for x in (n, g))
    nn, gn, gg = n.mT @ n, g.mT @ n, g.mT @ g
    for argument, x in (("point", nn), ("gradient", gg)):
        if not bool(torch.isfinite(_trace(x)).all()):
            raise NonFiniteError(
                argument, "must be finite", "NaN or infinity", "Look where it came from."
            )
    scale, of_g = (1 / _or_one(_trace(x).sqrt()) for x in (nn, gg))
    nn, gn, gg = nn * scale.square(), gn * (scale * of_g), gg * of_g.square()
    along = _trace(gn)
    of_n = -along
    tn = gn - along * nn
    tt = gg - along * (gn + tn.mT)
    share = _trace(tt).clamp_min(0).sqrt()
    rows = (share < SMALL_SHARE).flatten().nonzero().squeeze(-1)
    if len(rows):
        # The difference of Gram matrices would lose the digits of a small tangent part.
        normals, tangents = scale[rows] * n[rows], of_g[rows] * g[rows]
        for _ in range(2):
            tangents = tangents - normals * inner(normals, tangents)
        g[rows], of_g[rows], of_n[rows] = tangents, 1.0, 0.0
        tt[rows], tn[rows] = tangents.mT @ tangents, tangents.mT @ normals
        share[rows] = _trace(tt[rows]).sqrt()
    has_tangent_part = share > projection_rounding(gradient)
    share = torch.where(has_tangent_part, share, torch.inf)
    tt, tn = tt / share.square(), tn / share
    nu = _or_one(torch.linalg.vector_norm(nn, dim=(-2, -1)).sqrt())[:, None]
    return Problem(g, n, of_g / share, of_n / share, scale, tt, tn, nn, nu, wide)


def _trace(x: Tensor) -> Tensor:
    return x.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]


def _or_one(x: Tensor) -> Tensor:
    return torch.where(x == 0, 1.0, x)


ROUNDING = 16.0
"""The rounding of a Gram matrix, in units of `√n ε ‖X‖_F²`; that of its decomposition included."""
SMALLEST_CURVATURE = 1e-9
"""The smallest second derivative of φ that Newton's method divides by."""
SMALL_SHARE = 0.5
"""The share of the tangent part in the gradient below which it is computed from the gradient, not from Gram matrices."""
