"""The best learning rate of every size and arm, and its change between sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from modular_manifolds.training.sweep.plan import Arm, Size
from modular_manifolds.training.sweep.results import Result


@dataclass(frozen=True)
class Curve:
    """Validation loss by notch, the mean over seeds; infinite if a run diverged."""

    size: Size
    losses: dict[int, float]

    @property
    def best(self) -> int | None:
        """The lowest notch with the lowest loss; None if every run diverged."""
        best = min(sorted(self.losses), key=self.losses.__getitem__, default=None)
        return None if best is None or math.isinf(self.losses[best]) else best

    @property
    def edge(self) -> Literal["lowest", "highest"] | None:
        """The end of the grid, if the best rate is there, so that a better one may lie outside; None otherwise."""
        if self.best == min(self.losses):
            return "lowest"
        return "highest" if self.best == max(self.losses) else None


@dataclass(frozen=True)
class Summary:
    """One arm's curves, the smallest size first."""

    arm: Arm
    curves: tuple[Curve, ...]

    @property
    def rate_shift(self) -> int | None:
        """The distance between the lowest and the highest best rate, in notches of √2; None if a size has no best rate."""
        best = [curve.best for curve in self.curves]
        known = [notch for notch in best if notch is not None]
        return max(known) - min(known) if len(known) == len(best) else None

    @property
    def transfer_cost(self) -> float | None:
        """The excess loss, in per cent, of the largest size at the smallest size's best rate.

        Infinite if it diverged at this rate; None if this rate was not run.
        """
        first, last = self.curves[0], self.curves[-1]
        if first.best is None or last.best is None or first.best not in last.losses:
            return None
        return 100.0 * (last.losses[first.best] / last.losses[last.best] - 1.0)


def curve(results: Sequence[Result], arm: Arm, size: Size) -> Curve:
    """The curve of one arm at one size."""
    losses: dict[int, list[float]] = {}
    for result in results:
        if (result.point.arm, result.point.size) == (arm, size):
            loss = result.outcome.validation_loss
            losses.setdefault(result.point.notch, []).append(math.inf if loss is None else loss)
    return Curve(size, {notch: fmean(losses[notch]) for notch in sorted(losses)})


def summaries(
    results: Sequence[Result], arms: Sequence[Arm], sizes: Sequence[Size]
) -> list[Summary]:
    """A summary of each arm."""
    return [Summary(arm, tuple(curve(results, arm, size) for size in sizes)) for arm in arms]
