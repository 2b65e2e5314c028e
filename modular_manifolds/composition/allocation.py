"""The split of one learning rate over all weights of a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from modular_manifolds.arguments import NOT_NEGATIVE, check_number
from modular_manifolds.composition.budget import (
    BUDGET_ROUNDING,
    Budget,
    BudgetRow,
    TypicalSlope,
)
from modular_manifolds.composition.folding import Algebra, fold
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.radius import Radius, total
from modular_manifolds.composition.sizes import LeafBound, arrivals, downstream_slopes
from modular_manifolds.composition.tree import Tree, leaves


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
