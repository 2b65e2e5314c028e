"""Slopes and sizes of a whole tree from those of its leaves, and what stands behind each leaf.

Each is a table of five rules. With slope s and reach r of the parts at what arrives:

| composition | slope | reach | behind a part |
|---|---|---|---|
| series f, then g | s_f · s_g | r_g(r_f) | behind f: s_g · behind the whole |
| parallel (f, g) | s_f + s_g | (r_f, r_g) | as behind the whole |
| sum f + g | s_f + s_g | r_f + r_g | as behind the whole |
| scale c · f | size of c · s_f | size of c · r_f | size of c · behind the whole |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from modular_manifolds.composition.folding import Algebra, carried, fold
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.radius import Radius, added, plus, scaled, times
from modular_manifolds.composition.tree import Tree

LeafBound = Callable[[Leaf, Radius], float]
"""A leaf's slope bound for inputs of norm at most a radius."""


class Sizes(NamedTuple):
    """A slope bound, and a bound on the output, for inputs of norm at most a radius."""

    slope: float
    reach: Radius


class Arrival(NamedTuple):
    """One leaf, the bound on the norm of its input, and its slope bound there."""

    leaf: Leaf
    radius: Radius
    slope: float


Through = Callable[[Radius], Sizes]


def reach(tree: Tree, radius: Radius, bound: LeafBound = Leaf.sensitivity_within) -> Radius:
    """Bound the largest output for inputs of at most `radius`, for weights in their unit balls.

    `reach(leaf, r) = min(s(r)·r + ‖f(0)‖, largest)`; series compose, a parallel keeps its parts apart, a sum
    adds, a scale multiplies by |c|. With `bound=Leaf.lipschitz_within` it holds for weights anywhere on their
    manifolds.
    """
    return fold(tree, _sizes(bound))(radius).reach


def slope(tree: Tree, radius: Radius, bound: LeafBound = Leaf.sensitivity_within) -> float:
    """Bound the slope for inputs of at most `radius`, for weights in their unit balls.

    Each part's bound is taken at the radius that arrives there. If no part's bound depends on that radius, the
    result is the sensitivity of `tree.signature`. `bound` is as in `reach`.
    """
    return fold(tree, _sizes(bound))(radius).slope


def arrivals(tree: Tree, radius: Radius, bound: LeafBound) -> list[Arrival]:
    """Give every leaf with what arrives at it for inputs of at most `radius`, in the order of data."""
    found: list[Arrival] = []
    fold(tree, _sizes(bound, found.append))(radius)
    return found


def _sizes(bound: LeafBound, watch: Callable[[Arrival], None] | None = None) -> Algebra[Through]:
    def at_a_leaf(leaf: Leaf, radius: Radius) -> Sizes:
        own = partial(bound, leaf)
        slope = leaf.slope(radius, own)
        if watch is not None:
            watch(Arrival(leaf, radius, slope))
        return Sizes(slope, leaf.reach(radius, own))

    return carried(
        "slopes and sizes",
        leaf=at_a_leaf,
        onward=lambda f: f.reach,
        then=lambda f, g: Sizes(times(f.slope, g.slope), g.reach),
        parallel=lambda parts: Sizes(_sum_of_slopes(parts), tuple(f.reach for f in parts)),
        total=lambda parts: Sizes(_sum_of_slopes(parts), added([f.reach for f in parts])),
        scale=lambda c, f: Sizes(times(abs(c), f.slope), scaled(c, f.reach)),
    )


def _sum_of_slopes(parts: Sequence[Sizes]) -> float:
    return plus(f.slope for f in parts)


@dataclass(frozen=True)
class _Behind:
    """The slope of a part, and the slopes behind its leaves for a slope behind the part."""

    slope: float
    spread: Callable[[float], list[float]]


def behind(tree: Tree, slopes: Iterable[float]) -> list[float]:
    """Give the product of the slopes behind each leaf, both in the order of data.

    It bounds the gradient at the leaf's output for one of unit dual norm at the output of the whole:
    `‖Jᵀ g‖ ≤ L ‖g‖` in the dual norms. The dual of a sum of norms is the largest of the duals, so a
    gradient of unit norm gives every part of a tuple one of at most unit norm.
    """
    left = iter(slopes)

    def series(parts: Sequence[_Behind]) -> _Behind:
        slope = 1.0
        for part in parts:
            slope = times(slope, part.slope)

        def spread(rest: float) -> list[float]:
            found: list[list[float]] = []
            for part in reversed(parts):
                found.append(part.spread(rest))
                rest = times(rest, part.slope)
            return [each for part in reversed(found) for each in part]

        return _Behind(slope, spread)

    def side_by_side(parts: Sequence[_Behind]) -> _Behind:
        def spread(rest: float) -> list[float]:
            found: list[float] = []
            for part in parts:
                found += part.spread(rest)
            return found

        return _Behind(plus(part.slope for part in parts), spread)

    rules = Algebra(
        "the slopes behind each leaf",
        leaf=lambda _: _Behind(next(left), lambda rest: [rest]),
        series=series,
        parallel=side_by_side,
        sum=side_by_side,
        scale=lambda c, part: _Behind(
            times(abs(c), part.slope), lambda rest: part.spread(times(abs(c), rest))
        ),
    )
    return fold(tree, rules).spread(1.0)
