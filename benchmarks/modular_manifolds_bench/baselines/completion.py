"""The whole direction from its part along W, for Stiefel × Spectral.

Every tangent A is `WT + Z` with T skew and `WᵀZ = 0`. Given T with `‖T‖₂ ≤ 1`, the ball leaves
`ZᵀZ ⪯ I − TᵀT = LLᵀ`, and the best such Z is `−G⊥F` with `F = L (LᵀEL)^{-1/2} Lᵀ`, which descends by
`tr (LᵀEL)^{1/2}`. Unlike shrinking a direction that is a little too long, this loses nothing to first
order: near the optimum the gap falls with the square of the error in T. See `stiefel_dual` for the letters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import inner
from modular_manifolds.linalg.products import plus_product, product
from modular_manifolds.linalg.symmetric import gram
from modular_manifolds_bench.baselines.stiefel_dual import StiefelDual, inverse_root, skew


@dataclass(frozen=True)
class Completion:
    """`A = WT − G⊥F`: T skew, F symmetric, both n×n and float64.

    `descent` is `−<G, A>`, shape (*batch, 1, 1); `steepest` the largest eigenvalue of
    `(LᵀEL)^{-1/2}`, shape (*batch), the amplification of rounding in G⊥.
    """

    t: Tensor
    fill: Tensor
    descent: Tensor
    steepest: Tensor

    def or_better(self, other: Completion | None) -> Completion:
        """The completion that descends further, for each matrix of the batch."""
        if other is None:
            return self
        ours = self.descent >= other.descent
        return Completion(
            torch.where(ours, self.t, other.t),
            torch.where(ours, self.fill, other.fill),
            torch.where(ours, self.descent, other.descent),
            torch.where(ours[..., 0, 0], self.steepest, other.steepest),
        )


def complete(problem: StiefelDual, t: Tensor) -> Completion:
    """The steepest feasible direction with the skew T, singular values above one capped exactly."""
    eigenvalues, basis = torch.linalg.eigh(gram(t))
    cap = eigenvalues.clamp_min(1).rsqrt()
    capped = skew(t @ ((basis * cap.unsqueeze(-2)) @ basis.mT))
    left = (1 - eigenvalues).clamp(0, 1).sqrt()
    return _fill(problem, capped, basis * left.unsqueeze(-2))


def complete_softly(problem: StiefelDual, t: Tensor) -> Completion:
    """The same by products and one Cholesky factor, with T bent into the unit ball by a polynomial.

    A T beyond the polynomial's reach is completed exactly.
    """
    bent = bend(t)
    left = bent @ bent
    left.diagonal(dim1=-2, dim2=-1).add_(1)
    factor, failed = torch.linalg.cholesky_ex(left)
    if bool(failed.any()):
        return complete(problem, t)
    return _fill(problem, bent, factor)


def bend(t: Tensor) -> Tensor:
    """The skew T with its singular values brought below 1 by `σ ↦ σ (1 − c σ^8)`.

    That stays below 1 up to σ = 1.5 and takes 4 % off σ = 1, at which nearly all of a direction is along W and
    a change of T costs least.
    """
    squared = t @ t
    fourth = squared @ squared
    return skew(t - BEND * (fourth @ fourth @ t))


BEND = 0.045
"""`c` with `max over σ ≥ 0 of σ (1 − c σ^8) = (8/9) (9c)^{-1/8} = 0.995`."""


def direction(problem: StiefelDual, completion: Completion) -> Tensor:
    """The tall direction `WT − G⊥F`, tangent and within the unit ball to half the digits of its dtype."""
    dtype = problem.w.dtype
    fill = (completion.fill * problem.scale).to(dtype)
    along = product(problem.w, completion.t.to(dtype))
    a = plus_product(along, problem.across, fill, factor=-1.0)
    # G⊥, F and E are rounded, and F amplifies the errors in directions with tiny singular values of G.
    steepest = float(completion.steepest.max())
    lost = steepest * (problem.precision + steepest * torch.finfo(problem.e.dtype).eps)
    if not lost <= problem.precision**0.5:
        a = problem.feasible(a)
    return a


def _fill(problem: StiefelDual, t: Tensor, factor: Tensor) -> Completion:
    values, vectors = torch.linalg.eigh(factor.mT @ problem.e @ factor)
    turned = factor @ vectors
    # G⊥ was rounded in the caller's dtype: below this it is noise, for a square W all of it.
    noise = values.shape[-1] * (8 * problem.precision) ** 2
    inverse = torch.where(values > noise, inverse_root(values, problem.precision), 0.0)
    fill = (turned * inverse.unsqueeze(-2)) @ turned.mT
    across = (values.clamp_min(0) * inverse).sum(dim=-1, keepdim=True).unsqueeze(-1)
    return Completion(t, fill, across - inner(problem.k, t), inverse.amax(dim=-1))
