"""The learning-rate budget: a table with the share of each weight, and what it promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from modular_manifolds.composition.radius import plus, times
from modular_manifolds.tables import Printable, Table

BUDGET_ROUNDING: Final = 1e-9
"""The relative error of sums and products over a tree of a million modules, with four roundings of 2⁻⁵³ for each."""

NAMED_MODULES: Final = 3
"""The number of modules that a printed budget names for each reason."""


@dataclass(frozen=True)
class BudgetRow:
    """One weight's part of the learning rate.

    `share = (mass / total mass) / (downstream · norm_constant)` and `step = lr · share`, the length of
    the weight's step in its own norm. `downstream` is the product of the rate scales between the
    module's output and the network's, |c| of the scales around it included.

    `radius` bounds the module's input if the network's input is in its unit ball. It is 1 for a weight that is added
    to its input, because the size of that input does not matter. `slope` is the product of the downstream modules'
    slope bounds for the sizes of their inputs. It differs from `downstream` only if a bound depends on the size of the
    input or a module declares its own rate scale. `contribution = share · norm_constant · slope · radius` bounds the
    first-order change of the network's output by this weight's step, per unit of learning rate.
    """

    path: str
    manifold: str
    norm: str
    mass: float
    downstream: float
    norm_constant: float
    radius: float
    share: float
    step: float
    slope: float

    @property
    def contribution(self) -> float:
        return times(self.share, times(self.norm_constant * self.slope, self.radius))


@dataclass(frozen=True)
class TypicalSlope:
    """A module whose slope may exceed the rate scale that the budget divides by.

    `slope` is the module's slope bound if the network's input is in its unit ball.
    """

    path: str
    label: str
    rate_scale: float
    slope: float

    def __str__(self) -> str:
        return f"{self.path or self.label} ({self.rate_scale:.4g} of at most {self.slope:.4g})"


@dataclass(frozen=True)
class Budget(Printable):
    """The split of a learning rate: one row for each weight, in the order of data; `print` it to read it.

    Args:
        lr: the learning rate that is split.
        rows: one row for each weight.
        typical: the modules downstream of a weight whose slope may exceed their rate scale.
        unbounded: the weights on unbounded manifolds whose size enters another weight's row. The rows assume
            that they stay in their unit balls.
        by: the source of `downstream`: `"bound"` for the composition, `"measured"` for data, `"mass"` if it is unknown
            and set to 1.
    """

    lr: float
    rows: tuple[BudgetRow, ...]
    typical: tuple[TypicalSlope, ...] = ()
    unbounded: tuple[str, ...] = ()
    by: Literal["bound", "measured", "mass"] = "bound"

    @property
    def first_order(self) -> float:
        """A bound on the output's first-order change in one step, per unit of learning rate.

        It holds for inputs and weights in their unit balls. It is at most 1 if every downstream rate scale is a slope
        bound and every module's input stays in its unit ball.
        """
        return plus(row.contribution for row in self.rows)

    @property
    def is_bound(self) -> bool:
        """Whether a step of learning rate η is proved to move the output by at most η, to first order.

        It is true if `first_order` is at most 1 and `unbounded` is empty. The bound then holds for every input in the
        unit ball and every point of the weights' manifolds. Otherwise η is an expectation: the change if slopes are
        typical and sizes are at most 1.
        """
        bounded = self.by == "bound" and not self.unbounded
        return bounded and self.first_order <= 1 + BUDGET_ROUNDING

    @property
    def verdict(self) -> str:
        """One line: the largest change of the output in a step, and whether the learning rate bounds it."""
        if self.by == "measured":
            return (
                f"lr={self.lr:g}: one step moves the outputs by about {times(self.first_order, self.lr):.4g} (rms) at "
                "most to first order, on the data that measured the responses; the learning rate is an expectation, not a bound"
            )
        if self.by == "mass":
            return f"lr={self.lr:g}: split by mass alone; the change of the outputs in a step is not known"
        assumed = " and weights of at most unit norm" if self.unbounded else ""
        change = (
            f"lr={self.lr:g}: one step moves the output by at most {times(self.first_order, self.lr):.4g} "
            f"to first order, for inputs in the unit ball{assumed}; the learning rate is "
        )
        if self.is_bound:
            return change + "a bound on this change"
        return change + "an expectation, not a bound" + "".join(self._reasons())

    def _reasons(self) -> Iterator[str]:
        if self.typical:
            modules = sorted(self.typical, key=lambda each: each.rate_scale / each.slope)
            yield f"; it divides by typical slopes at {_named(modules)}"
        large = [row for row in self.rows if row.mass > 0 and row.radius > 1 + BUDGET_ROUNDING]
        if large:
            large.sort(key=lambda row: -row.radius)
            sizes = [f"{row.path} ({row.radius:.4g})" for row in large]
            yield f"; inputs may be larger than 1 at {_named(sizes)}"
        if self.unbounded:
            yield f"; nothing bounds the weights {_named(self.unbounded)}"

    @property
    def shares(self) -> dict[str, float]:
        """Each weight's share, by path."""
        return {row.path: row.share for row in self.rows}

    def header(self) -> list[str]:
        """The names of the columns of `cells`."""
        divisor = "downstream" if self.by == "bound" else "response"
        return ["weight", "manifold", "norm", "mass", divisor, "radius", "share", "step"]

    def cells(self) -> list[list[float | str]]:
        """The rows as text and numbers, for a table."""
        return [
            [r.path, r.manifold, r.norm, r.mass, r.downstream, r.radius, r.share, r.step]
            for r in self.rows
        ]

    def printed(self) -> list[Table | str]:
        """The table, and below it the verdict, a line for each of its clauses."""
        if not self.rows:
            return [f"budget of lr={self.lr:g}: the network has no weights"]
        return [Table(self.header(), self.cells()), *self.verdict.split("; ")]


def _named(modules: Sequence[object]) -> str:
    """The first `NAMED_MODULES` of `modules` as text, and the number of the others."""
    more = len(modules) - NAMED_MODULES
    text = ", ".join(str(each) for each in modules[:NAMED_MODULES])
    return f"{text} and {more} more" if more > 0 else text
