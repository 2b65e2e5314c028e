"""A bracket around the minimum of a convex function of one number, as tensors that no host reads.

The function is bounded from below by two lines. `solvers.search` does the same with numbers on the host.

`φ(λ) = ‖T + λN‖_nuc` for matrices T and N with `<N, T> = 0` and `‖N‖_F = 1`: every A with `‖A‖₂ ≤ 1` gives the line
`−<T, A> − λ<N, A> ≤ φ(λ)`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import inner


@dataclass(frozen=True)
class Line:
    """The lower bound `start + slope · λ ≤ φ(λ)` by one direction in the ball, computed at λ = `multiplier`.

    The direction has shape (*batch, m, n), the numbers (*batch, 1, 1).
    """

    direction: Tensor
    multiplier: Tensor
    start: Tensor
    slope: Tensor

    @classmethod
    def of(cls, direction: Tensor, tangent: Tensor, n: Tensor, multiplier: Tensor) -> Line:
        return cls(direction, multiplier, -_number(tangent, direction), -_number(n, direction))

    def where(self, mask: Tensor, other: Line) -> Line:
        return Line(
            torch.where(mask, self.direction, other.direction),
            torch.where(mask, self.multiplier, other.multiplier),
            torch.where(mask, self.start, other.start),
            torch.where(mask, self.slope, other.slope),
        )


@dataclass(frozen=True)
class Bracket:
    """Two lines around the minimum of φ, the lowest φ so far (`best`), and the two λ that a warm start tries first.

    Directions have shape (*batch, m, n), numbers (*batch, 1, 1) in float64.
    """

    low: Line
    high: Line
    best: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def around_all(cls, tangent: Tensor, n: Tensor, best: Tensor, dual: Tensor | None) -> Bracket:
        """The initial bracket: the lines `±λ` of `A = ∓N`, which need only `‖N‖₂ ≤ 1`.

        `best` is a bound on `φ(0)`, so the minimum has `|λ| ≤ best`.
        """
        starts = torch.zeros_like(best).expand(*best.shape[:-1], 2) if dual is None else dual
        starts = starts.to(best)
        low, high = Line.of(n, tangent, n, -best), Line.of(-n, tangent, n, best)
        first, second = starts.split(1, dim=-1)
        return cls(low, high, best, first, second)

    def aim(self, i: int) -> Tensor:
        """The λ to try in round i, from 0 on: those of a warm start, then the point at which the lines meet."""
        left, right = _limits(self.low, self.high, self.best)
        if i == 0:
            return self.first.clamp(left, right)
        aim, second = _where_lines_meet(self.low, self.high), self.second
        if i == 1:
            aim = torch.where((left < second) & (second < right), second, aim)
        return aim.clamp(left, right)

    def closed(self, trial: Line, objective: Tensor) -> Bracket:
        """The bracket in which the line of a trial replaces the end on its side."""
        return replace(
            self,
            low=trial.where(trial.slope <= 0, self.low),
            high=trial.where(trial.slope > 0, self.high),
            best=torch.minimum(self.best, objective),
        )

    def mix(self) -> Tensor:
        """The convex combination of the two directions with `<N, A> = 0`."""
        low, high = self.low, self.high
        # Both slopes are zero only if N is zero. There is no constraint then, and the last trial is the low end.
        weight = (
            _safely(high.slope, high.slope - low.slope, 1.0).clamp(0, 1).to(low.direction.dtype)
        )
        return weight * low.direction + (1 - weight) * high.direction

    def ends(self) -> Tensor:
        """The λ of the two ends, shape (*batch, 1, 2); the end with the smaller slope comes first."""
        low_first = self.low.slope.abs() <= self.high.slope.abs()
        first = torch.where(low_first, self.low.multiplier, self.high.multiplier)
        second = torch.where(low_first, self.high.multiplier, self.low.multiplier)
        return torch.cat((first, second), dim=-1)


def _limits(low: Line, high: Line, best: Tensor) -> tuple[Tensor, Tensor]:
    """The range of λ that can hold the minimum: between the two ends, with neither line above `best`."""
    left = _safely(best - low.start, low.slope, -torch.inf)
    right = _safely(best - high.start, high.slope, torch.inf)
    return left.maximum(low.multiplier), right.minimum(high.multiplier)


def _where_lines_meet(low: Line, high: Line) -> Tensor:
    """The λ at which the two lines meet: the minimum itself if φ has a kink there."""
    middle = (low.multiplier + high.multiplier) / 2
    return _safely(low.start - high.start, high.slope - low.slope, middle)


def _number(a: Tensor, b: Tensor) -> Tensor:
    """`<A, B>`, summed in the dtype of the matrices and converted to float64."""
    return inner(a, b).double()


def _safely(x: Tensor, by: Tensor, otherwise: Tensor | float) -> Tensor:
    """`x / by`, or `otherwise` if `by` is zero."""
    return torch.where(by == 0, otherwise, x / torch.where(by == 0, 1.0, by))
