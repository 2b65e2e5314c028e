"""The studies of sizes: how the best rate moves with width, depth or the number of steps, as a table and as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from arena.arms import ARMS
from arena.cells import Tuned
from arena.tables import MISSING, best_values, markdown, text_of
from modular_manifolds.training.sweep.figure import Panel, transfer


@dataclass(frozen=True)
class Carried:
    """One arm over all sizes.

    Args:
        arm: the arm's name.
        tuned: the tuning runs of each size, the smallest first.
        carried: the loss of the largest size at the best rate of the smallest; None if it is missing.
        fourfold: the loss of each size at four times its best rates; empty if the study does not ask for it.
    """

    arm: str
    tuned: Sequence[Tuned]
    carried: float | None
    fourfold: Sequence[float | None] = ()

    def cells(self) -> list[str]:
        """The row of the table."""
        known = [each for each in self.tuned if each.is_complete]
        texts = [
            f"{best_values(each)}: {each.loss:.3f}" if each.is_complete else MISSING
            for each in self.tuned
        ]
        firsts = [first for first, *_ in (each.best for each in known)]
        moves = str(max(firsts) - min(firsts)) if len(known) > 1 else MISSING
        cost = None
        if self.carried is not None:
            cost = 100 * (self.carried / self.tuned[-1].loss - 1)
        row = [ARMS[self.arm].title, *texts, moves, text_of(cost, ".2f", " %")]
        if self.fourfold:
            ratios = [
                None if loss is None else loss / each.loss
                for loss, each in zip(self.fourfold, self.tuned, strict=True)
            ]
            row.append(", ".join(text_of(each, ".3f") for each in ratios))
        return row


@dataclass(frozen=True)
class Transfer:
    """All arms of a task over all sizes; its text is the table.

    Args:
        task: the task's name.
        field: the size that changes: width, depth or steps.
        sizes: its values.
        rows: the arms.
        seeds: the number of seeds of tuning.
    """

    task: str
    field: str
    sizes: Sequence[int]
    rows: Sequence[Carried]
    seeds: int

    def __str__(self) -> str:
        header = [
            "arm",
            *(f"{self.field} {size}" for size in self.sizes),
            "moves by",
            "smallest's rate at the largest costs",
        ]
        if any(row.fourfold for row in self.rows):
            header.append("loss at 4× the rate, to the best")
        source = "one seed" if self.seeds == 1 else f"means of {self.seeds} seeds"
        return (
            f"{self.task}: the best rate and its loss by {self.field}, {source}; several rates move together, in notches of "
            f"√2, and the scale is 1\n\n{markdown(header, [row.cells() for row in self.rows])}"
        )

    def panels(self) -> list[Panel]:
        """The losses by log₂ of the first learning rate: a panel for each arm, a curve for each size."""
        return [
            Panel(
                ARMS[row.arm].title,
                {
                    f"{self.field} {size}": {
                        math.log2(each.cell.values(point)[0]): loss
                        for point, loss in each.losses.items()
                    }
                    for size, each in zip(self.sizes, row.tuned, strict=True)
                },
            )
            for row in self.rows
        ]

    def picture(self) -> str:
        """The panels as SVG."""
        return transfer(self.panels())
