"""The studies: which cells they need, and the table that each prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from arena.arms import ARMS
from arena.cells import Cell, Effort, Look, at_multiple, compare, loss_at, repeats, tune
from arena.result import Result
from arena.tables import compare_table, default_table, time_table
from arena.tasks import TASKS
from arena.transfer import Carried, Transfer

TIMED_STEPS = 20
"""The number of steps of a run that only measures time."""


@dataclass(frozen=True)
class Choice:
    """The user's choice of tasks, arms and effort."""

    tasks: Sequence[str]
    arms: Sequence[str]
    effort: Effort
    steps: int | None
    device: str

    def cell(self, task: str, arm: str) -> Cell:
        """An arm at the task's base size."""
        known = TASKS[task]
        steps = known.steps if self.steps is None else self.steps
        return Cell(task, arm, known.width, known.depth, steps, known.batch, self.device)


def compare_study(choice: Choice, look: Look) -> Iterator[str]:
    """Every arm at the task's base size, tuned, with fresh seeds."""
    for task in choice.tasks:
        standings = [compare(choice.cell(task, arm), look, choice.effort) for arm in choice.arms]
        yield compare_table(task, standings)


def default_study(choice: Choice, look: Look) -> Iterator[str]:
    """The values that a user would try first, beside the tuned ones, with the same fresh seeds."""
    for task in choice.tasks:
        rows = []
        for arm in choice.arms:
            cell = choice.cell(task, arm)
            standing = compare(cell, look, choice.effort)
            rows.append((standing, repeats(cell, ARMS[arm].default, look, choice.effort)))
        yield default_table(task, rows)


def time_study(choice: Choice, look: Look) -> Iterator[str]:
    """The price of a step at the values that a user would try first: short runs of all arms, in turn."""
    for task in choice.tasks:
        cells = {arm: replace(choice.cell(task, arm), steps=TIMED_STEPS) for arm in choice.arms}
        results: dict[str, tuple[Result, ...]] = dict.fromkeys(choice.arms, ())
        for seed in range(1, 1 + choice.effort.seeds):
            for arm, cell in cells.items():
                found = look(cell.settings(ARMS[arm].default, seed))
                results[arm] += () if found is None else (found,)
        yield time_table(task, next(iter(cells.values())), list(results.items()))


def _size_study(
    choice: Choice, look: Look, field: str, *, larger: bool = False
) -> Iterator[Transfer]:
    """Each task's arms, tuned at each size; with `larger` also at four times the best rates."""
    for task in choice.tasks:
        sizes = TASKS[task].sizes(field)
        if not sizes:
            continue
        rows = []
        for arm in choice.arms:
            base = choice.cell(task, arm)
            cells = [replace(base, **{field: size}) for size in sizes]
            tuned = [tune(cell, look, choice.effort, rates_only=True) for cell in cells]
            carried = None
            if tuned[0].is_complete and tuned[-1].is_complete:
                carried = loss_at(cells[-1], tuned[0].values, look, choice.effort)
            fourfold = [at_multiple(each, 4, look, choice.effort) for each in tuned if larger]
            rows.append(Carried(arm, tuned, carried, fourfold))
        yield Transfer(task, field, sizes, rows, choice.effort.tuning_seeds)


def width_study(choice: Choice, look: Look) -> Iterator[Transfer]:
    """The best rate at each width."""
    return _size_study(choice, look, "width")


def depth_study(choice: Choice, look: Look) -> Iterator[Transfer]:
    """The best rate at each depth."""
    return _size_study(choice, look, "depth")


def length_study(choice: Choice, look: Look) -> Iterator[Transfer]:
    """The best rate for each number of steps, and the loss at four times this rate."""
    return _size_study(choice, look, "steps", larger=True)


Study = Callable[[Choice, Look], Iterator[str | Transfer]]
"""A study's tables, in Markdown or, for the studies of sizes, with the curves behind them."""

STUDIES: Final[dict[str, Study]] = {
    "compare": compare_study,
    "default": default_study,
    "time": time_study,
    "width": width_study,
    "depth": depth_study,
    "length": length_study,
}
"""The studies by name."""
