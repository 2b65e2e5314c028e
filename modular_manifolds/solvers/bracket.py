"""The minimum of a convex function of one number, between two lines that lie below it.

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
    """`start + slope · λ ≤ φ(λ)`: the bound on φ by one direction in the ball; `multiplier` is the λ that gave it.

    Direction of shape (*batch, m, n), the others (*batch, 1, 1).
    """

    direction: Tensor
    multiplier: Tensor
    start: Tensor
    slope: Tensor

    @classmethod
    def of(cls, direction: Tensor, tangent: Tensor, n: Tensor, multiplier: Tensor) -> Line:
        return cls(direction, multiplier, -_number(tangent, direction), -_number(n, direction))

    def where(self, ours: Tensor, other: Line) -> Line:
        return Line(
            torch.where(ours, self.direction, other.direction),
            torch.where(ours, self.multiplier, other.multiplier),
            torch.where(ours, self.start, other.start),
            torch.where(ours, self.slope, other.slope),
        )


@dataclass(frozen=True)
class Bracket:
    """The two lines between which the minimum of φ lies, the lowest φ seen, and the λ that a warm start tries first.

    Directions of shape (*batch, m, n), numbers (*batch, 1, 1) in float64.
    """

    low: Line
    high: Line
    best: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def around_all(cls, tangent: Tensor, n: Tensor, best: Tensor, dual: Tensor | None) -> Bracket:
        """The bracket that is known beforehand, by the lines `±λ` of `A = ∓N`.

        They need no more of N than `‖N‖₂ ≤ 1`. `best` is a bound on `φ(0)`, so a λ beyond it is not the minimum.
        """
        given = torch.zeros_like(best).expand(*best.shape[:-1], 2) if dual is None else dual
        given = given.to(best)
        low, high = Line.of(n, tangent, n, -best), Line.of(-n, tangent, n, best)
        first, second = given.split(1, dim=-1)
        return cls(low, high, best, first, second)

    def aim(self, i: int, *, meet_every: int) -> Tensor:
        """The λ to try in round i.

        Args:
            i: the number of the round, from 0 on.
            meet_every: every how many rounds the two lines meet at λ; in the others the chord of their slopes is zero
                there. The former needs fewer rounds for a gap of 1e-2, the latter for 1e-6.
        """
        left, right = _limits(self.low, self.high, self.best)
        if i == 0:
            return self.first.clamp(left, right)
        low, high, second = self.low, self.high, self.second
        aim = _where_lines_meet(low, high) if i % meet_every == 0 else _chord_is_zero(low, high)
        if i == 1:
            aim = torch.where((left < second) & (second < right), second, aim)
        return aim.clamp(left, right)

    def closed(self, trial: Line, objective: Tensor) -> Bracket:
        """The bracket with the line of a trial in the place of the end on its side."""
        return replace(
            self,
            low=trial.where(trial.slope <= 0, self.low),
            high=trial.where(trial.slope > 0, self.high),
            best=torch.minimum(self.best, objective),
        )

    def mix(self) -> Tensor:
        """The convex combination of the two directions with `<N, A> = 0`."""
        low, high = self.low, self.high
        # Both slopes are zero only if N is: then the last trial is the low end, and nothing restricts it.
        share = _safely(high.slope, high.slope - low.slope, 1.0).clamp(0, 1).to(low.direction.dtype)
        return share * low.direction + (1 - share) * high.direction

    def ends(self) -> Tensor:
        """The two λ, shape (*batch, 1, 2), first the one at which φ is flatter."""
        low_first = self.low.slope.abs() <= self.high.slope.abs()
        first = torch.where(low_first, self.low.multiplier, self.high.multiplier)
        second = torch.where(low_first, self.high.multiplier, self.low.multiplier)
        return torch.cat((first, second), dim=-1)


def _limits(low: Line, high: Line, best: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of the range of the minimum of φ: between the two λ, with neither line above `best`."""
    left = _safely(best - low.start, low.slope, -torch.inf)
    right = _safely(best - high.start, high.slope, torch.inf)
    return left.maximum(low.multiplier), right.minimum(high.multiplier)


def _chord_is_zero(low: Line, high: Line) -> Tensor:
    """The λ at which the slope would be zero if it rose evenly from the one λ to the other."""
    ahead = high.slope * low.multiplier - low.slope * high.multiplier
    return _safely(ahead, high.slope - low.slope, (low.multiplier + high.multiplier) / 2)


def _where_lines_meet(low: Line, high: Line) -> Tensor:
    """The lowest point that the two lines allow: at a kink of φ, the kink."""
    middle = (low.multiplier + high.multiplier) / 2
    return _safely(low.start - high.start, high.slope - low.slope, middle)


def _number(a: Tensor, b: Tensor) -> Tensor:
    """`<A, B>`, summed in the dtype of the matrices, in float64."""
    return inner(a, b).double()


def _safely(x: Tensor, by: Tensor, otherwise: Tensor | float) -> Tensor:
    """`x / by`, or `otherwise` if `by` is zero."""
    return torch.where(by == 0, otherwise, x / torch.where(by == 0, 1.0, by))
