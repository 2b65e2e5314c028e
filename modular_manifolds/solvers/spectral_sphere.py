"""A solver for the sphere and the spectral sphere with the spectral norm: one multiplier, found by bracketing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from modular_manifolds.errors import NonFiniteError
from modular_manifolds.linalg.matrices import MATRIX, exceeds_rounding, inner, normalise
from modular_manifolds.linalg.matrix_sign import msign
from modular_manifolds.linalg.msign_gap import nuclear_bounds
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.bracket import Bracket
from modular_manifolds.solvers.bracket import Line as TensorLine
from modular_manifolds.solvers.bracketing_plan import BracketingPlan
from modular_manifolds.solvers.gram_search import ByGrams
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.search import Line, Search, outcome, search
from modular_manifolds.solvers.solution import Solution, relative_gap


@dataclass(frozen=True)
class SpectralSphereDual(Solver):
    """A solver of `min <G, A>` subject to `‖A‖₂ ≤ 1` and `<N, A> = 0`, N the normal at W with `‖N‖_F = 1`.

    On the sphere `N = W/‖W‖_F`; on the spectral sphere `N = u vᵀ`, the top singular pair of W.

    Let T be the tangent part of G, `<N, T> = 0`, scaled to unit Frobenius norm. The dual is
    `max over λ of −φ(λ)`, `φ(λ) = ‖T + λN‖_nuc`, convex in one number, with slope `<N, msign(T + λN)>`. Every A in
    the ball bounds φ from below by a line, `φ(λ) ≥ −<T, A> − λ<N, A>`. A = ∓N lies in the ball, because
    `‖N‖₂ ≤ ‖N‖_F = 1`, and `<N, N> = 1`, `<T, N> = 0`: so `φ(λ) ≥ |λ|`, whatever the rank of N. At the minimum
    `|λ| ≤ φ(λ) ≤ φ(0) ≤ √n`, n the smaller side. These two lines are the first ends of a bracket.

    Each round computes the msign of `T + λN` at one λ, within the range in which neither line exceeds the lowest φ so
    far. Its line replaces the end on its side. The convex combination of the two ends' directions with `<N, A> = 0` is
    exactly feasible; its gap to the lowest φ is the certificate. Each matrix of a stack stops by its own gap.

    On a CPU a weight in float32 needs one eigendecomposition of an n×n matrix a round (`ByGrams`). In float64, or
    for a tolerance below 1e-3, `T + λN` itself is decomposed (`ByDecompositions`). On an accelerator each round is an
    msign by matrix products, the number of rounds is fixed, and the tolerance is at least 1e-2 (`ByProducts`).

    The dual of a solution holds the two ends' λ, shape (*batch, 1, 2), the end with the smaller slope first. A warm
    start tries the first, then the second if it is still in the range. For the same gradient it recovers the bracket
    in two rounds.

    Args:
        tolerance: stop when the relative duality gap is at most this.
        max_iterations: the largest number of rounds on a CPU.
    """

    tolerance: float = 1e-2
    max_iterations: int = 60

    name = "spectral-sphere-dual"
    reason = "one multiplier is left, the root of a monotone function"

    def dual_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-2], 1, 2)

    def plan(
        self,
        manifold: Manifold,
        norm: Norm,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device_type: str,
    ) -> Plan:
        length = norm.spectral_unit(shape)
        if device_type != "cpu":
            return ByProducts(max(self.tolerance, ByProducts.REACHED), manifold, length)
        by_grams = dtype is torch.float32 and self.tolerance >= GRAMS_MIN_TOLERANCE
        kind = ByGrams if by_grams else ByDecompositions
        dual_shape = self.dual_shape(shape)
        return kind(self.tolerance, manifold, length, self.max_iterations, dual_shape)


GRAMS_MIN_TOLERANCE = 1e-3
"""The smallest tolerance for Gram matrices, which lose singular values below 1e-7 of the largest."""


@dataclass(frozen=True)
class ByDecompositions(BracketingPlan):
    """A plan for the CPU: decompositions in float64 until the gap is within the tolerance.

    The next λ is the zero of the chord of the two slopes, or in every third round the point at which the lines meet.
    """

    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        g = normalise(gradient, dim=MATRIX)
        n = self.manifold.unit_normal(point.double())
        for argument, x in (("gradient", g), ("point", n)):
            if not bool(torch.isfinite(x).all()):
                raise NonFiniteError(
                    argument, "must be finite", "NaN or infinity", "Look where it came from."
                )
        normal = n.to(g.dtype)
        has_tangent_part = exceeds_rounding(g - normal * inner(normal, g), dim=MATRIX)
        g = g.double()
        tangent = normalise(torch.where(has_tangent_part, g - n * inner(n, g), 0.0), dim=MATRIX)
        best = has_tangent_part.double() * min(point.shape[-2:]) ** 0.5
        # One batch dimension.
        tangent, n = (x.reshape(-1, *x.shape[-2:]) for x in (tangent, n))
        trials: list[Tensor] = []

        def trial(rows: Sequence[int], multipliers: Sequence[float]) -> Tensor:
            some = torch.tensor(rows, device=n.device)
            numbers, directions = _tried(tangent[some], n[some], multipliers)
            trials.append(directions)
            return numbers

        along = inner(tangent, n).flatten().tolist()
        size = inner(n, n).flatten().tolist()
        first = [()] * len(size) if dual is None else dual.double().reshape(-1, 2).tolist()
        searches = [
            Search(Line(-b, -t, -s), Line(b, t, s), b, *pair)
            for b, t, s, pair in zip(best.flatten().tolist(), along, size, first, strict=True)
        ]
        rounds = search(
            searches,
            trial,
            tolerance=self.tolerance or 0.0,
            rounds=self.max_iterations,
            meet_every=3,
        )

        def direction(line: Line, known: Tensor) -> Tensor:
            return known if line.trial is None else trials[line.trial[0]][line.trial[1]]

        mixed = [
            each.weight * direction(each.low, x) + (1 - each.weight) * direction(each.high, -x)
            for each, x in zip(searches, n, strict=True)
        ]
        a = (self.length * torch.stack(mixed)).to(gradient.dtype).reshape(point.shape)
        gap, starts = outcome(searches, point)
        return Solution(a, gap, rounds, self.tolerance, starts)

    def __str__(self) -> str:
        return (
            f"it closes the bracket by decompositions in float64, {self.max_iterations} at most, until the gap is "
            f"{self.tolerance:g}"
        )


@dataclass(frozen=True)
class ByProducts(Plan):
    """A plan for accelerators: a fixed number of rounds, each an `msign` by polynomials in the dtype of the weight.

    Nothing is read on the host. Every direction is divided by `1 + ε`, ε the accuracy of the msign. It then lies in the
    ball and bounds φ from below by a line. `nuclear_bounds` bounds φ from above. So the gap is a certificate, up to
    rounding.

    Args:
        manifold: gives the normal.
        length: the spectral norm of the direction.
        rounds: the number of values of λ that are tried.
        accuracy: the arguments of the msign.
        floor: as `accuracy`.
    """

    manifold: Manifold
    length: float
    rounds: int = 5
    accuracy: float = 1e-3
    floor: float = 1e-3

    REACHED: ClassVar[float] = 1e-2
    """The relative gap that five rounds reach from a cold start; 2e-3 to 5e-3 from 32 columns on."""

    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        n = self.manifold.unit_normal(point, by_products=True)
        g = normalise(gradient, dim=MATRIX)
        tangent = g - n * inner(n, g)
        has_tangent_part = exceeds_rounding(tangent, dim=MATRIX)
        tangent = normalise(torch.where(has_tangent_part, tangent, 0.0), dim=MATRIX)
        # After the division by a small length, the rounding of the first projection can be as long as the tangent part.
        tangent = normalise(tangent - n * inner(n, tangent), dim=MATRIX)
        best = has_tangent_part.double() * min(point.shape[-2:]) ** 0.5
        bracket = Bracket.around_all(tangent, n, best, dual)
        for i in range(self.rounds):
            bracket = bracket.closed(*self._line_at(tangent, n, bracket.aim(i)))
        a = bracket.mix()
        a = a - n * inner(n, a)
        gap = relative_gap(-inner(tangent, a).double(), bracket.best)
        # The comparisons in the bracket drop NaN, so it is restored here.
        a = torch.where(gap.isnan().unsqueeze(-1).unsqueeze(-1), torch.nan, a)
        return Solution(self.length * a, gap, self.rounds, self.tolerance, bracket.ends())

    def _line_at(self, tangent: Tensor, n: Tensor, multiplier: Tensor) -> tuple[TensorLine, Tensor]:
        """The line of `−msign(T + λN)/(1 + ε)`, which lies below φ, and an upper bound on φ(λ)."""
        x = tangent + multiplier.to(n.dtype) * n
        sign = msign(x, accuracy=self.accuracy, floor=self.floor)
        size = torch.linalg.vector_norm(x, dim=MATRIX)
        _, nuclear = nuclear_bounds(x, sign, size=size, accuracy=self.accuracy, floor=self.floor)
        line = TensorLine.of(sign / -(1 + self.accuracy), tangent, n, multiplier)
        return line, nuclear.unsqueeze(-1).unsqueeze(-1)

    def deeper(self, gap: float | None = None) -> Plan | None:
        """A plan with eight rounds and a finer msign, for gaps of 1e-3 and less."""
        del gap
        finer = replace(self, rounds=8, accuracy=1e-4, floor=1e-5)
        return None if finer == self else finer

    def __str__(self) -> str:
        return (
            f"it closes the bracket in {self.rounds} rounds, each an msign by polynomials in the dtype of the weight, "
            f"to within {self.accuracy:g}"
        )


def _tried(tangent: Tensor, n: Tensor, multipliers: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The numbers of a trial at λ, and `A = −msign(T + λN)`, whose line touches φ at λ."""
    at = n.new_tensor(multipliers)[:, None, None]
    u, sigma, vh = torch.linalg.svd(tangent + at * n, full_matrices=False)
    # msign maps zero singular values to zero.
    mask = (sigma > 1e-14 * sigma[..., :1]).to(u.dtype).unsqueeze(-2)
    directions = -((u * mask) @ vh)
    start, slope = (-inner(x, directions).flatten() for x in (tangent, n))
    numbers = (start, slope, sigma.sum(dim=-1), torch.full_like(start, torch.nan))
    return torch.stack(numbers, dim=-1), directions
