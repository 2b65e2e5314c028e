"""The spectral sphere with the spectral norm: one multiplier, found between two brackets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.errors import NonFiniteError
from modular_manifolds.linalg.matrices import MATRIX, inner, more_than_rounding, normalise
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.spectral_sphere import top_pair
from modular_manifolds.norms.base import Norm
from modular_manifolds.norms.rms_operator import RMSOperator, unit
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.solution import Solution, relative_gap


@dataclass(frozen=True)
class SpectralSphereDual(Solver):
    """`min <G, A>` subject to `‖A‖₂ ≤ 1` and `<N, A> = 0`, `N = u vᵀ` the top singular pair of W.

    Only the tangent part T of G counts, `<N, T> = 0`, at unit Frobenius norm. The dual is
    `max over λ of −φ(λ)`, `φ(λ) = ‖T + λN‖_nuc`, convex in one number, with slope `<N, msign(T + λN)>`. Every A in
    the ball bounds φ from below by a line, `φ(λ) ≥ −<T, A> − λ<N, A>`; A = ∓N gives `φ(λ) ≥ |λ|`, so the root of
    the slope lies where `|λ| ≤ φ(0) ≤ √n`, n the smaller side. These two lines are the first ends of a bracket. A
    decomposition gives another line, which takes the place of the end on its side. The next λ is where the
    slopes' chord is zero, every third time where the lines meet, never where one of them exceeds the lowest φ seen.
    The mix of the two ends' directions with `<N, A> = 0` is feasible exactly, and descends nearly as far as the
    dual allows: its gap against the lowest φ is the certificate.

    The dual is the two ends' λ, shape (*batch, 1, 2), the one with the smaller slope first. A warm start tries
    it, then the other if that is still inside: for the same gradient the bracket is back in two decompositions.

    Args:
        tolerance: stop when the relative duality gap is at most this.
        max_iterations: decompositions at most.
    """

    tolerance: float = 1e-6
    max_iterations: int = 60

    name = "spectral-sphere-dual"
    reason = "one multiplier is left, the root of a monotone function"

    def dual_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-2], 1, 2)

    def solve(
        self, manifold: Manifold, norm: Norm, point: Tensor, gradient: Tensor, dual: Tensor | None
    ) -> Solution:
        length = unit(point) if isinstance(norm, RMSOperator) else 1.0
        g = normalise(gradient, dim=MATRIX)
        if not bool(torch.isfinite(g).all()):
            raise NonFiniteError(
                "gradient", "must be finite", "NaN or infinity", "Look where it came from."
            )
        there = more_than_rounding(manifold.tangent(point, g), dim=MATRIX)
        g, n = g.double(), top_pair(point)
        tangent = normalise(torch.where(there, g - n * inner(n, g), 0.0), dim=MATRIX)
        best = there.double() * min(point.shape[-2:]) ** 0.5
        first = torch.zeros_like(best) if dual is None else dual.to(best)[..., :1]
        second = torch.zeros_like(best) if dual is None else dual.to(best)[..., 1:]
        low, high = _Line.of(n, tangent, n, -best), _Line.of(-n, tangent, n, best)
        iterations = 0
        while True:
            a = _mix(low, high)
            gap = relative_gap(-inner(tangent, a), best)
            converged = float(gap.max()) <= self.tolerance
            if converged or iterations >= self.max_iterations:
                break
            left, right = _bracket(low, high, best)
            aim = _where_lines_meet(low, high) if iterations % 3 == 0 else _chord_is_zero(low, high)
            if iterations == 0:
                aim = first
            elif iterations == 1:
                aim = torch.where((left < second) & (second < right), second, aim)
            trial, objective = _touching(tangent, n, aim.clamp(left, right))
            best = torch.minimum(best, objective)
            low, high = trial.where(trial.slope <= 0, low), trial.where(trial.slope > 0, high)
            iterations += 1
        return Solution(
            (length * a).to(gradient.dtype),
            gap,
            iterations,
            self.tolerance,
            _ends(low, high),
        )


@dataclass(frozen=True)
class _Line:
    """`start + slope · λ ≤ φ(λ)`: what one direction in the ball says of φ; `multiplier` is where it was made.

    Direction of shape (*batch, m, n), the others (*batch, 1, 1).
    """

    direction: Tensor
    multiplier: Tensor
    start: Tensor
    slope: Tensor

    @classmethod
    def of(cls, direction: Tensor, tangent: Tensor, n: Tensor, multiplier: Tensor) -> _Line:
        return cls(direction, multiplier, -inner(tangent, direction), -inner(n, direction))

    def where(self, ours: Tensor, other: _Line) -> _Line:
        return _Line(
            torch.where(ours, self.direction, other.direction),
            torch.where(ours, self.multiplier, other.multiplier),
            torch.where(ours, self.start, other.start),
            torch.where(ours, self.slope, other.slope),
        )


def _touching(tangent: Tensor, n: Tensor, multiplier: Tensor) -> tuple[_Line, Tensor]:
    """The line of `A = −msign(T + λN)`, which touches φ at λ, and φ(λ)."""
    u, sigma, vh = torch.linalg.svd(tangent + multiplier * n, full_matrices=False)
    # Where T has no direction of its own, msign has none either.
    kept = (sigma > 1e-14 * sigma[..., :1]).to(u.dtype).unsqueeze(-2)
    line = _Line.of(-((u * kept) @ vh), tangent, n, multiplier)
    return line, sigma.sum(dim=-1)[..., None, None]


def _mix(low: _Line, high: _Line) -> Tensor:
    """The convex combination of the two directions with `<N, A> = 0`."""
    part = _safely(high.slope, high.slope - low.slope, 0.5).clamp(0, 1)
    return part * low.direction + (1 - part) * high.direction


def _bracket(low: _Line, high: _Line, best: Tensor) -> tuple[Tensor, Tensor]:
    """Where the minimum of φ can be: between the two λ, and where neither line is above `best`."""
    left = _safely(best - low.start, low.slope, -torch.inf)
    right = _safely(best - high.start, high.slope, torch.inf)
    return left.maximum(low.multiplier), right.minimum(high.multiplier)


def _chord_is_zero(low: _Line, high: _Line) -> Tensor:
    """Where the slope would be zero if it rose evenly from the one λ to the other."""
    ahead = high.slope * low.multiplier - low.slope * high.multiplier
    return _safely(ahead, high.slope - low.slope, (low.multiplier + high.multiplier) / 2)


def _where_lines_meet(low: _Line, high: _Line) -> Tensor:
    """The lowest point that the two lines allow: at a kink of φ, the kink."""
    middle = (low.multiplier + high.multiplier) / 2
    return _safely(low.start - high.start, high.slope - low.slope, middle)


def _ends(low: _Line, high: _Line) -> Tensor:
    """The two λ, shape (*batch, 1, 2), first the one where φ is flatter."""
    low_first = low.slope.abs() <= high.slope.abs()
    first = torch.where(low_first, low.multiplier, high.multiplier)
    second = torch.where(low_first, high.multiplier, low.multiplier)
    return torch.cat((first, second), dim=-1)


def _safely(x: Tensor, by: Tensor, otherwise: Tensor | float) -> Tensor:
    """`x / by`, and `otherwise` where `by` is zero."""
    return torch.where(by == 0, otherwise, x / torch.where(by == 0, 1.0, by))
