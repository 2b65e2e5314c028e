"""The minimum of a convex function of one number between two lines below it, by numbers on the host.

`φ(λ) = ‖T + λN‖_nuc` for matrices T and N with `<N, T> = 0`: every A with `‖A‖₂ ≤ 1` gives the line
`−<T, A> − λ<N, A> ≤ φ(λ)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor


@dataclass(frozen=True)
class Line:
    """The lower bound `start + slope · λ ≤ φ(λ)` by one direction in the ball, computed at λ = `multiplier`.

    Args:
        newton: where Newton's method goes from `multiplier`; NaN if no second derivative is known.
        trial: the round and the row of the trial; None if the line was known before.
    """

    multiplier: float
    start: float
    slope: float
    newton: float = math.nan
    trial: tuple[int, int] | None = None


@dataclass
class Search:
    """Two lines around the minimum of φ for one matrix, and the λ that come first.

    Args:
        low: the line with a slope of at most zero.
        high: the line with a positive slope.
        best: the lowest φ so far, or a bound on it.
        first: the λ of a warm start.
        second: the λ that a warm start tries next.
    """

    low: Line
    high: Line
    best: float
    first: float = 0.0
    second: float = math.nan

    def aim(self, i: int, *, meet_every: int) -> float:
        """The λ to try in round i.

        While all trials are on one side of the minimum, Newton's method says how far to go, if there is a second
        derivative. A tenth more than that gives a trial on the other side.

        Args:
            i: the number of the round, from 0 on.
            meet_every: in every `meet_every`-th round the two lines meet at λ; in the others the chord of their slopes
                is zero at λ. The former needs fewer rounds for a gap of 1e-2, the latter for 1e-6.
        """
        left, right = self._limits()
        if i == 0:
            return min(max(self.first, left), right)
        low, high = self.low, self.high
        only = self._only_trial()
        reached = math.inf
        if only is not None and not math.isnan(only.newton) and i % NEWTON_PAUSES_EVERY != 0:
            step = OVERSHOOT * (only.newton - only.multiplier)
            aim, reached = only.multiplier + step, abs(step)
        elif i % meet_every == 0:
            aim = _ratio(low.start - high.start, high.slope - low.slope)
        else:
            difference = high.slope * low.multiplier - low.slope * high.multiplier
            aim = _ratio(difference, high.slope - low.slope)
        if i == 1 and left < self.second < right and abs(self.second - self.first) <= reached:
            # A step beyond the other end of the last bracket has probably passed a kink.
            aim = self.second
        aim = (low.multiplier + high.multiplier) / 2 if math.isnan(aim) else aim
        return min(max(aim, left), right)

    def close(self, line: Line, objective: float) -> None:
        """Replace the end on the side of the line."""
        if line.slope <= 0:
            self.low = line
        else:
            self.high = line
        self.best = min(self.best, objective)

    @property
    def weight(self) -> float:
        """The weight of the low end in the convex combination of the two directions with `<N, A> = 0`."""
        # Both slopes are zero only if N is zero. There is no constraint then, and the last trial is the low end.
        difference = self.high.slope - self.low.slope
        return 1.0 if difference == 0 else min(max(self.high.slope / difference, 0.0), 1.0)

    @property
    def gap(self) -> float:
        """The relative duality gap of that combination, between 0 and 1; 0 if φ is zero."""
        if self.best <= 0:
            return 0.0
        weight = self.weight
        primal = weight * self.low.start + (1 - weight) * self.high.start
        return min(max((self.best - primal) / self.best, 0.0), 1.0)

    def starts(self) -> tuple[float, float]:
        """The λ that a warm start tries: those of the two ends, that with the smaller slope first.

        If all trials are on one side, both are the λ of the last one.
        """
        only = self._only_trial()
        ends = (self.low, self.high) if only is None else (only, only)
        first, second = sorted(ends, key=lambda each: abs(each.slope))
        return first.multiplier, second.multiplier

    def _only_trial(self) -> Line | None:
        """The last trial, if all are on one side."""
        tried = [each for each in (self.low, self.high) if each.trial is not None]
        return tried[0] if len(tried) == 1 else None

    def _limits(self) -> tuple[float, float]:
        """The range of λ that can hold the minimum: between the two ends, with neither line above `best`."""
        low, high = self.low, self.high
        left = _ratio(self.best - low.start, low.slope)
        right = _ratio(self.best - high.start, high.slope)
        # Comparisons with NaN are false, so a slope of zero gives no limit.
        left = left if left > low.multiplier else low.multiplier
        right = right if right < high.multiplier else high.multiplier
        return left, right


OVERSHOOT: Final = 1.1
"""The length of a step, in Newton's steps, that probably brings a trial to the other side of the minimum."""

NEWTON_PAUSES_EVERY: Final = 4
"""In such rounds the lines meet instead: close to a kink Newton's steps may be too short."""

Trial = Callable[[Sequence[int], Sequence[float]], Tensor]
"""`trial(rows, λ)` tries one λ for some matrices of a stack. A row of its result, shape (rows, 4), holds the start and the
slope of the line, φ, and Newton's next λ."""


def search(
    searches: Sequence[Search], trial: Trial, *, tolerance: float, rounds: int, meet_every: int
) -> int:
    """Close the brackets of a stack until every gap is within the tolerance; the result is the number of rounds.

    A matrix whose gap is small enough is tried no more, so its result does not depend on the rest of the stack.

    Args:
        searches: one for each matrix.
        trial: tries one λ for each of some matrices.
        tolerance: the largest gap.
        rounds: the largest number of rounds.
        meet_every: as in `Search.aim`.
    """
    for i in range(rounds):
        rows = [row for row, each in enumerate(searches) if each.gap > tolerance]
        if not rows:
            return i
        aims = [searches[row].aim(i, meet_every=meet_every) for row in rows]
        numbers = trial(rows, aims).tolist()
        for j, (row, aim) in enumerate(zip(rows, aims, strict=True)):
            start, slope, objective, newton = numbers[j]
            searches[row].close(Line(aim, start, slope, newton, (i, j)), objective)
    return rounds


def outcome(searches: Sequence[Search], point: Tensor) -> tuple[Tensor, Tensor]:
    """The gaps, shape (*batch), and the λ for a warm start, shape (*batch, 1, 2), for weights like `point`."""
    batch = point.shape[:-2]
    rows = [(each.gap, *each.starts()) for each in searches]
    numbers = torch.tensor(rows, dtype=torch.float64, device=point.device)
    return numbers[:, 0].reshape(batch), numbers[:, 1:].reshape(*batch, 1, 2)


def _ratio(x: float, by: float) -> float:
    """`x / by`, or NaN if `by` is zero."""
    return math.nan if by == 0 else x / by
