"""Slopes and sizes carried through a tree: what arrives at every leaf, and what leaves the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from modular_manifolds.certificates.linear_map import MatrixOf, is_linear, multiplied_out
from modular_manifolds.composition.radius import Radius, added, scaled, times, total
from modular_manifolds.composition.space import AnySpace, ProductSpace, Space, substitute
from modular_manifolds.composition.tree import (
    Leaf,
    Parallel,
    Scale,
    Series,
    Sum,
    Tree,
    leaves,
)
from modular_manifolds.nn.geometry import through_l2

SlopeOf = Callable[[Leaf, Radius], float]


@dataclass(frozen=True)
class Passage:
    """One leaf on the way: the spaces, its slope bound at the size that arrives, and the sizes.

    `arriving` bounds the norm of its input and `leaving` that of its output; `gradient` bounds the dual
    norm of the gradient at its output for a gradient of unit dual norm at the network's output.
    """

    leaf: Leaf
    source: AnySpace
    target: AnySpace
    slope: float
    arriving: float
    leaving: float
    gradient: float
    radii: Radius


@dataclass(frozen=True)
class Propagation:
    """The slope bound of the whole, the bound on its output, and what passes at each leaf.

    `merged` names the leaves that were multiplied out together, a tuple a matrix.
    """

    slope: float
    leaving: float
    passages: tuple[Passage, ...]
    merged: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class _Part:
    slope: float
    leaving: Radius
    target: AnySpace


def propagate(
    tree: Tree,
    source: AnySpace,
    radius: Radius,
    slope_of: SlopeOf,
    matrix_of: MatrixOf | None = None,
) -> Propagation:
    """Carry inputs of `source` of norm at most `radius`, which may be infinite, through `tree`.

    A leaf of slope bound L gives outputs of norm at most `L · radius + ‖f(0)‖`, and no larger than it says
    itself; the sizes of a tuple's parts are carried one by one. The slope of a series is
    the product of its parts' slopes, that of a parallel or a sum their sum, that of a scale |c| times.
    With `matrix_of`, maximal linear parts are multiplied out, and their σ_max serves where it is less.
    """
    walk = _Walk(slope_of, matrix_of)
    whole = walk.part(tree, source, radius, merge=matrix_of is not None)
    gradients = dict(_gradients(tree, walk.slopes, 1.0))
    passages = [walk.passage(leaf, gradients[leaf.path]) for leaf in leaves(tree)]
    return Propagation(whole.slope, total(whole.leaving), tuple(passages), tuple(walk.merged))


@dataclass
class _Walk:
    slope_of: SlopeOf
    matrix_of: MatrixOf | None
    seen: dict[str, tuple[AnySpace, Radius, _Part]] = field(
        default_factory=dict[str, "tuple[AnySpace, Radius, _Part]"]
    )
    merged: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])

    @property
    def slopes(self) -> dict[str, float]:
        return {path: part.slope for path, (_, _, part) in self.seen.items()}

    def passage(self, leaf: Leaf, gradient: float) -> Passage:
        source, arriving, part = self.seen[leaf.path]
        sizes = total(arriving), total(part.leaving)
        return Passage(leaf, source, part.target, part.slope, *sizes, gradient, arriving)

    def part(self, tree: Tree, source: AnySpace, radius: Radius, *, merge: bool) -> _Part:
        one_map = merge and not isinstance(tree, Leaf) and self.linear(tree)
        by_rule = self.by_rule(tree, source, radius, merge=merge and not one_map)
        return self.as_one_map(tree, source, radius, by_rule) if one_map else by_rule

    def by_rule(self, tree: Tree, source: AnySpace, radius: Radius, *, merge: bool) -> _Part:
        match tree:
            case Leaf():
                bound = partial(self.slope_of, tree)
                slope, leaving = tree.slope(radius, bound), tree.reach(radius, bound)
                own = _Part(slope, leaving, substitute(tree.signature.target, source))
                self.seen[tree.path] = source, radius, own
                return own
            case Scale():
                inside = self.part(tree.part, source, radius, merge=merge)
                slope = times(abs(tree.factor), inside.slope)
                leaving = scaled(tree.factor, inside.leaving)
                return _Part(slope, leaving, inside.target)
            case Series():
                whole = _Part(1.0, radius, source)
                for part in self.runs(_flat(tree)) if merge else tree.parts:
                    own = self.part(part, whole.target, whole.leaving, merge=merge)
                    whole = _Part(times(whole.slope, own.slope), own.leaving, own.target)
                return whole
            case Parallel() | Sum():
                parts = self.addends(tree) if merge and isinstance(tree, Sum) else tree.parts
                found = [self.part(part, source, radius, merge=merge) for part in parts]
                slope = math.fsum(each.slope for each in found)
                sizes = tuple(each.leaving for each in found)
                if isinstance(tree, Sum):
                    return _Part(slope, added(sizes), found[0].target)
                return _Part(slope, sizes, ProductSpace(tuple(each.target for each in found)))

    def as_one_map(self, tree: Tree, source: AnySpace, radius: Radius, by_rule: _Part) -> _Part:
        """The part's bounds through its one matrix, where they are smaller than those of the rules."""
        assert self.matrix_of is not None
        linear = multiplied_out(tree, source, self.matrix_of)
        if linear is None or not isinstance(source, Space) or not isinstance(by_rule.target, Space):
            return by_rule
        shape = (by_rule.target.size, source.size)
        ends = through_l2(shape, source.norm, by_rule.target.norm)
        slope = linear.largest_singular_value() * ends
        if not slope < by_rule.slope:
            return by_rule
        self.merged.append(tuple(leaf.path for leaf in leaves(tree)))
        leaving = min(total(by_rule.leaving), times(slope, total(radius)))
        return _Part(slope, leaving, by_rule.target)

    def runs(self, parts: tuple[Tree, ...]) -> list[Tree]:
        """Neighbours in a series that are linear, each run as a series of its own."""
        grouped: list[Tree] = []
        for linear, run in groupby(parts, self.linear):
            neighbours = tuple(run)
            if linear and len(neighbours) > 1:
                grouped.append(Series("", neighbours))
            else:
                grouped.extend(neighbours)
        return grouped

    def addends(self, tree: Sum) -> list[Tree]:
        """The parts of a sum, those that are linear as one sum."""
        linear = tuple(part for part in tree.parts if self.linear(part))
        if len(linear) < 2:
            return list(tree.parts)
        return [Sum("", linear), *(part for part in tree.parts if not self.linear(part))]

    def linear(self, tree: Tree) -> bool:
        return self.matrix_of is not None and is_linear(tree, self.matrix_of)


def _flat(tree: Series) -> tuple[Tree, ...]:
    """The parts of a series, those of series inside it in their place."""
    parts: list[Tree] = []
    for part in tree.parts:
        parts.extend(_flat(part) if isinstance(part, Series) else [part])
    return tuple(parts)


def _gradients(
    tree: Tree, slopes: dict[str, float], downstream: float
) -> Iterator[tuple[str, float]]:
    """The bound on the gradient at each leaf's output: the product of the slopes behind it.

    `‖Jᵀ g‖ ≤ L ‖g‖` in the dual norms. The dual of a sum of norms is the largest of the duals, so a
    gradient of unit norm gives every part of a tuple one of at most unit norm.
    """
    match tree:
        case Leaf():
            yield tree.path, downstream
        case Scale():
            yield from _gradients(tree.part, slopes, times(abs(tree.factor), downstream))
        case Series():
            for part in reversed(tree.parts):
                yield from _gradients(part, slopes, downstream)
                downstream = times(downstream, _slope(part, slopes))
        case Parallel() | Sum():
            for part in tree.parts:
                yield from _gradients(part, slopes, downstream)


def _slope(tree: Tree, slopes: dict[str, float]) -> float:
    match tree:
        case Leaf():
            return slopes[tree.path]
        case Scale():
            return times(abs(tree.factor), _slope(tree.part, slopes))
        case Series():
            bound = 1.0
            for part in tree.parts:
                bound = times(bound, _slope(part, slopes))
            return bound
        case Parallel() | Sum():
            return math.fsum(_slope(part, slopes) for part in tree.parts)
