"""The learning-rate budget: the split of one learning rate over all weights of a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from modular_manifolds.arguments import NOT_NEGATIVE, check_number
from modular_manifolds.composition.folding import Algebra, fold
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.radius import Radius, plus, times, total
from modular_manifolds.composition.sizes import LeafBound, arrivals, downstream_slopes
from modular_manifolds.composition.tree import Tree, leaves
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
        """The table, and the verdict below it."""
        if not self.rows:
            return [f"budget of lr={self.lr:g}: the network has no weights"]
        return [Table(self.header(), self.cells()), self.verdict]


def _named(modules: Sequence[object]) -> str:
    """The first `NAMED_MODULES` of `modules` as text, and the number of the others."""
    more = len(modules) - NAMED_MODULES
    text = ", ".join(str(each) for each in modules[:NAMED_MODULES])
    return f"{text} and {more} more" if more > 0 else text


def allocate(tree: Tree, lr: float) -> Budget:
    """Split the learning rate `lr` over the weights of `tree`.

    A step of modular norm `lr` splits into one step a weight,
    `step_i = lr · (m_i / Σm) / (κ_i · Π rate scales downstream of i)`.
    A weight of mass 0 gets share 0: it is frozen.

    Raises:
        ArgumentError: `lr` is not finite or is negative.
    """
    remedy = "Pass a learning rate such as 0.1."
    rate = check_number(lr, NOT_NEGATIVE, argument="lr", remedy=remedy)
    places = _places(tree, Leaf.sensitivity_within)
    rows = _rows(places, rate, tree.signature.mass)
    typical = tuple(found for place in places if (found := place.typical()) is not None)
    return Budget(rate, rows, typical, _unbounded(tree, rows))


@dataclass(frozen=True)
class _Place:
    """A leaf, the bound on its input, and the products of the slopes downstream of it.

    Args:
        radius: the bound on the leaf's input.
        slope: its slope bound for such inputs.
        downstream: the product of the rate scales downstream.
        downstream_slope: the product of the slope bounds downstream.
        moved: whether a step of an upstream weight changes the leaf's input.
    """

    leaf: Leaf
    radius: Radius
    slope: float
    downstream: float
    downstream_slope: float
    moved: bool

    def typical(self) -> TypicalSlope | None:
        """The leaf's slopes, if its bound exceeds its rate scale and an upstream weight learns; otherwise None."""
        rate_scale = self.leaf.signature.rate_scale
        if not (self.moved and self.slope > rate_scale * (1 + BUDGET_ROUNDING)):
            return None
        return TypicalSlope(self.leaf.path, self.leaf.label, rate_scale, self.slope)


def _places(tree: Tree, bound: LeafBound) -> list[_Place]:
    """All leaves in the order of data, for network inputs in the unit ball."""
    arrived = arrivals(tree, 1.0, bound)
    downstream = downstream_slopes(tree, [each.leaf.signature.rate_scale for each in arrived])
    slopes = downstream_slopes(tree, [each.slope for each in arrived])
    moved = fold(tree, MOVED).leaves
    return [
        _Place(arrival.leaf, arrival.radius, arrival.slope, rate, slope, is_moved)
        for arrival, rate, slope, is_moved in zip(arrived, downstream, slopes, moved, strict=True)
    ]


@dataclass(frozen=True)
class _Moved:
    """Whether a part learns, and for each of its leaves whether a step of the part's weights moves the leaf's input."""

    learns: bool
    leaves: list[bool]


def _in_series(parts: Sequence[_Moved]) -> _Moved:
    learned, leaves = False, list[bool]()
    for part in parts:
        leaves += [learned or moved for moved in part.leaves]
        learned = learned or part.learns
    return _Moved(learned, leaves)


def _side_by_side(parts: Sequence[_Moved]) -> _Moved:
    return _Moved(
        any(part.learns for part in parts), [moved for part in parts for moved in part.leaves]
    )


MOVED: Final = Algebra(
    "the leaves that a step moves",
    leaf=lambda leaf: _Moved(leaf.signature.mass > 0, [False]),
    series=_in_series,
    parallel=_side_by_side,
    sum=_side_by_side,
    scale=lambda _, part: part,
)


def _rows(places: list[_Place], lr: float, mass: float) -> tuple[BudgetRow, ...]:
    """A row for each weight of a network of this mass."""
    return tuple(_row(place, lr, mass) for place in places if place.leaf.weight is not None)


def _row(place: _Place, lr: float, mass: float) -> BudgetRow:
    leaf = place.leaf
    assert leaf.weight is not None
    own = leaf.signature.mass
    scale = place.downstream * leaf.norm_constant
    share = own / mass / scale if own > 0 else 0.0
    return BudgetRow(
        path=leaf.weight,
        manifold=leaf.manifold,
        norm=leaf.norm,
        mass=own,
        downstream=place.downstream,
        norm_constant=leaf.norm_constant,
        radius=1.0 if leaf.additive else total(place.radius),
        share=share,
        step=lr * share,
        slope=place.downstream_slope,
    )


def _unbounded(tree: Tree, rows: tuple[BudgetRow, ...]) -> tuple[str, ...]:
    """The weights that may leave their unit balls, if that makes some contribution larger; otherwise none."""
    unbounded = tuple(
        leaf.weight
        for leaf in leaves(tree)
        if leaf.weight is not None and leaf.lipschitz > leaf.signature.sensitivity
    )
    if not unbounded:
        return ()
    rows_on_manifolds = _rows(_places(tree, Leaf.lipschitz_within), 1.0, tree.signature.mass)
    counts = any(
        bounded.contribution > row.contribution * (1 + BUDGET_ROUNDING)
        for bounded, row in zip(rows_on_manifolds, rows, strict=True)
    )
    return unbounded if counts else ()
