"""Cells: one arm on one task and size, tuned by a fixed number of runs, then repeated with fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from arena.arms import ARMS
from arena.result import Result
from arena.search import Point, best_point, is_finished, moved, next_point, values_at
from arena.settings import Settings

Look = Callable[[Settings], Result | None]
"""The result of a run, which is trained if need be; None if it is missing and may not be trained."""


@dataclass(frozen=True)
class Effort:
    """The effort spent on each cell.

    Args:
        runs: the runs that tune an arm, for each of its values: rates, and the scale of a manifold.
        seeds: the fresh seeds at its best values.
        tuning_seeds: the seeds of each tuning run, from 0 on: their mean loss decides. Fresh seeds come after them.
    """

    runs: int
    seeds: int
    tuning_seeds: int = 1


@dataclass(frozen=True)
class Cell:
    """An arm on a task, at one size."""

    task: str
    arm: str
    width: int
    depth: int
    steps: int
    batch: int
    device: str

    def settings(self, values: tuple[float, ...], seed: int) -> Settings:
        """The settings of one run of this cell."""
        return Settings(
            task=self.task,
            arm=self.arm,
            values=values,
            width=self.width,
            depth=self.depth,
            steps=self.steps,
            batch=self.batch,
            seed=seed,
            device=self.device,
        )

    def values(self, point: Point) -> tuple[float, ...]:
        """The values of a point of the arm's grid."""
        return values_at(ARMS[self.arm].centre, point)


@dataclass(frozen=True)
class Tuned:
    """The runs that tuned a cell.

    Args:
        cell: the cell.
        losses: the loss of each point, infinite if the run diverged.
        wanted: the number of runs that tuning takes.
        directions: the moves of the search.
    """

    cell: Cell
    losses: dict[Point, float]
    wanted: int
    directions: tuple[Point, ...]

    @property
    def is_complete(self) -> bool:
        """Whether all runs are there."""
        return len(self.losses) >= self.wanted

    @property
    def is_bracketed(self) -> bool:
        """Whether every neighbour of the best point was tried."""
        return is_finished(self.losses, self.directions)

    @property
    def best(self) -> Point:
        """The best point."""
        return best_point(self.losses)

    @property
    def values(self) -> tuple[float, ...]:
        """The best values."""
        return self.cell.values(self.best)

    @property
    def loss(self) -> float:
        """The loss at the best values, with the seeds of tuning."""
        return self.losses[self.best]


@dataclass(frozen=True)
class Standing:
    """A cell after tuning.

    Args:
        tuned: the tuning runs.
        repeats: the results of fresh seeds at the best values.
        doubled: the loss at two times the best rates, with the seeds of tuning.
        quadrupled: the loss at four times the best rates.
    """

    tuned: Tuned
    repeats: tuple[Result, ...] = ()
    doubled: float | None = None
    quadrupled: float | None = None


def tune(cell: Cell, look: Look, effort: Effort, *, rates_only: bool = False) -> Tuned:
    """Spend the runs of tuning, or find as many as are there.

    With `rates_only` all rates move together, as one value, and a scale stays where tuning begins.
    """
    arm = ARMS[cell.arm]
    directions = arm.directions[:1] if rates_only else arm.directions
    losses: dict[Point, float] = {}
    wanted = effort.runs * (1 if rates_only else len(arm.centre))
    while len(losses) < wanted:
        point = next_point(losses, directions)
        loss = loss_at(cell, cell.values(point), look, effort)
        if loss is None:
            break
        losses[point] = loss
    return Tuned(cell, losses, wanted, directions)


def compare(cell: Cell, look: Look, effort: Effort) -> Standing:
    """Tune a cell, repeat its best values with fresh seeds, and try two and four times the rates."""
    tuned = tune(cell, look, effort)
    if not tuned.is_complete:
        return Standing(tuned)
    found = repeats(cell, tuned.values, look, effort)
    doubled, quadrupled = (at_multiple(tuned, each, look, effort) for each in (2, 4))
    return Standing(tuned, found, doubled, quadrupled)


def at_multiple(tuned: Tuned, multiple: int, look: Look, effort: Effort) -> float | None:
    """The loss at a power of two times the best rates, with the seeds of tuning; None if it is missing."""
    if not tuned.is_complete:
        return None
    notches = 2 * (multiple.bit_length() - 1)
    point = moved(tuned.best, tuned.directions[0], notches)
    known = tuned.losses.get(point)
    return (
        known if known is not None else loss_at(tuned.cell, tuned.cell.values(point), look, effort)
    )


def repeats(
    cell: Cell, values: tuple[float, ...], look: Look, effort: Effort
) -> tuple[Result, ...]:
    """The results of the fresh seeds at these values, as far as they are there."""
    seeds = range(effort.tuning_seeds, effort.tuning_seeds + effort.seeds)
    found = (look(cell.settings(values, seed)) for seed in seeds)
    return tuple(each for each in found if each is not None)


def loss_at(cell: Cell, values: tuple[float, ...], look: Look, effort: Effort) -> float | None:
    """The mean loss of the seeds of tuning, infinite if one diverged; None if one is missing."""
    losses: list[float] = []
    for seed in range(effort.tuning_seeds):
        result = look(cell.settings(values, seed))
        if result is None:
            return None
        losses.append(math.inf if result.loss is None else result.loss)
    return fmean(losses)
