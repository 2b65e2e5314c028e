"""Slope bounds and output bounds of a tree, and the slopes downstream of each leaf.

Each is an algebra of five rules. With slope s and output bound r of the parts, and slope d downstream of the whole:

| composition | slope | output bound | downstream of a part |
|---|---|---|---|
| series f, then g | s_f · s_g | r_g(r_f) | of f: s_g · d; of g: d |
| parallel (f, g) | s_f + s_g | (r_f, r_g) | d |
| sum f + g | s_f + s_g | r_f + r_g | d |
| scale c · f | size of c · s_f | size of c · r_f | size of c · d |
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
    output: Radius


class Arrival(NamedTuple):
    """One leaf, the bound on the norm of its input, and its slope bound there."""

    leaf: Leaf
    radius: Radius
    slope: float


Through = Callable[[Radius], Sizes]


def output_bound(tree: Tree, radius: Radius, bound: LeafBound = Leaf.sensitivity_within) -> Radius:
    """A bound on the output for inputs of norm at most `radius` and weights in their unit balls.

    For a leaf it is `min(s(r)·r + ‖f(0)‖, largest)`. With `bound=Leaf.lipschitz_within` it holds for all weights on
    their manifolds.
    """
    return fold(tree, _sizes(bound))(radius).output


def slope(tree: Tree, radius: Radius, bound: LeafBound = Leaf.sensitivity_within) -> float:
    """A bound on the slope for inputs of norm at most `radius` and weights in their unit balls.

    Each part's bound is evaluated at the bound on its input. If no part's bound depends on it, the result is the
    sensitivity of `tree.signature`. `bound` is as in `output_bound`.
    """
    return fold(tree, _sizes(bound))(radius).slope


def arrivals(tree: Tree, radius: Radius, bound: LeafBound) -> list[Arrival]:
    """All leaves in the order of data, with the bounds on their inputs for network inputs of norm at most `radius`."""
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
        onward=lambda f: f.output,
        then=lambda f, g: Sizes(times(f.slope, g.slope), g.output),
        parallel=lambda parts: Sizes(_sum_of_slopes(parts), tuple(f.output for f in parts)),
        total=lambda parts: Sizes(_sum_of_slopes(parts), added([f.output for f in parts])),
        scale=lambda c, f: Sizes(times(abs(c), f.slope), scaled(c, f.output)),
    )


def _sum_of_slopes(parts: Sequence[Sizes]) -> float:
    return plus(f.slope for f in parts)


@dataclass(frozen=True)
class _Downstream:
    """The slope of a part; and a function from the slope downstream of it to the slopes downstream of its leaves."""

    slope: float
    at_leaves: Callable[[float], list[float]]


def downstream_slopes(tree: Tree, slopes: Iterable[float]) -> list[float]:
    """The product of the slopes downstream of each leaf; slopes and results are in the order of data.

    It bounds the gradient at the leaf's output, if the gradient at the network's output has dual norm 1:
    `‖Jᵀ g‖ ≤ L ‖g‖` in the dual norms. The dual of a sum of norms is the maximum of the dual norms, so every part of a
    tuple gets a gradient of at most the norm of the whole.
    """
    remaining = iter(slopes)

    def series(parts: Sequence[_Downstream]) -> _Downstream:
        slope = 1.0
        for part in parts:
            slope = times(slope, part.slope)

        def at_leaves(slope_after: float) -> list[float]:
            by_part: list[list[float]] = []
            for part in reversed(parts):
                by_part.append(part.at_leaves(slope_after))
                slope_after = times(slope_after, part.slope)
            return [each for part in reversed(by_part) for each in part]

        return _Downstream(slope, at_leaves)

    def side_by_side(parts: Sequence[_Downstream]) -> _Downstream:
        return _Downstream(
            plus(part.slope for part in parts),
            lambda slope_after: [each for part in parts for each in part.at_leaves(slope_after)],
        )

    rules = Algebra(
        "the slopes downstream of each leaf",
        leaf=lambda _: _Downstream(next(remaining), lambda slope_after: [slope_after]),
        series=series,
        parallel=side_by_side,
        sum=side_by_side,
        scale=lambda c, part: _Downstream(
            times(abs(c), part.slope),
            lambda slope_after: part.at_leaves(times(abs(c), slope_after)),
        ),
    )
    return fold(tree, rules).at_leaves(1.0)
