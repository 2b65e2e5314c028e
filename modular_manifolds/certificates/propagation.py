"""Propagation of slope bounds and size bounds through a tree, to every leaf and to the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from modular_manifolds.certificates.linear_map import (
    MapOf,
    MatrixOf,
    is_linear,
    matrix_product,
    no_matrix,
)
from modular_manifolds.composition.folding import Algebra, fold, paired
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.radius import Radius, added, plus, scaled, times, total
from modular_manifolds.composition.sizes import LeafBound, downstream_slopes
from modular_manifolds.composition.space import AnySpace, ProductSpace, Space, substitute
from modular_manifolds.composition.tree import Tree, leaves
from modular_manifolds.nn.geometry import through_l2


@dataclass(frozen=True)
class Passage:
    """One leaf in a propagation: its spaces, its slope bound for inputs of the arriving size, and the sizes.

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
    """The slope bound of the network, the bound on its output, and the passage of each leaf.

    `merged` names the leaves that were multiplied out together, one tuple for each matrix.
    """

    slope: float
    leaving: float
    passages: tuple[Passage, ...]
    merged: tuple[tuple[str, ...], ...] = ()


def propagate(
    tree: Tree,
    source: AnySpace,
    radius: Radius,
    slope_of: LeafBound,
    matrix_of: MatrixOf | None = None,
) -> Propagation:
    """Propagate the bound `radius`, which may be infinite, on inputs of `source` through `tree`.

    A leaf with slope bound L has outputs of norm at most `L · radius + ‖f(0)‖`, and at most its own output bound. The parts
    of a tuple have separate sizes. The slope of a series is the product of its parts' slopes, the slope of a parallel or a
    sum is their sum, and a scale c multiplies by |c|. With `matrix_of`, maximal linear parts are multiplied out, and their
    σ_max is used if it is smaller.
    """
    matrices = matrix_of or no_matrix
    walk = _Walk(slope_of, paired(is_linear(matrices), matrix_product(matrices)))
    whole = fold(tree, walk.rules()).through(source, radius, merge=matrix_of is not None)
    seen = [walk.seen[leaf.path] for leaf in leaves(tree)]
    gradients = downstream_slopes(tree, [part.slope for _, _, part in seen])
    passages = [
        Passage(
            leaf,
            before,
            part.target,
            part.slope,
            total(arriving),
            total(part.leaving),
            gradient,
            arriving,
        )
        for leaf, (before, arriving, part), gradient in zip(
            leaves(tree), seen, gradients, strict=True
        )
    ]
    return Propagation(whole.slope, total(whole.leaving), tuple(passages), tuple(walk.merged))


@dataclass(frozen=True)
class _Bound:
    """The slope bound of a part, the sizes of its output, and its output space."""

    slope: float
    leaving: Radius
    target: AnySpace


ByRule = Callable[[AnySpace, Radius, bool], _Bound]


@dataclass(frozen=True)
class _Part:
    """A part of the tree as a function of its input space and size; `merge` allows multiplying out linear parts.

    `parts` are the parts of a series, so that an outer series can multiply them out with their neighbours.
    """

    walk: _Walk
    by_rule: ByRule
    linear: bool
    matrix: MapOf
    paths: tuple[str, ...]
    parts: tuple[_Part, ...] = ()
    leaf: bool = False

    def through(self, source: AnySpace, radius: Radius, *, merge: bool) -> _Bound:
        if not merge or self.leaf or not self.linear:
            return self.by_rule(source, radius, merge)
        # This part is one linear map, so its own parts need not be multiplied out.
        return self.walk.as_one_map(self, source, radius, self.by_rule(source, radius, False))


@dataclass
class _Walk:
    """The rules of a propagation, and the bounds that they collect."""

    slope_of: LeafBound
    maps: Algebra[tuple[bool, MapOf]]
    seen: dict[str, tuple[AnySpace, Radius, _Bound]] = field(
        default_factory=dict[str, "tuple[AnySpace, Radius, _Bound]"]
    )
    merged: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])

    def rules(self) -> Algebra[_Part]:
        return Algebra(
            "slopes and sizes leaf by leaf",
            self.leaf,
            self.series,
            self.parallel,
            self.sum,
            self.scale,
        )

    def leaf(self, leaf: Leaf) -> _Part:
        def by_rule(source: AnySpace, radius: Radius, merge: bool) -> _Bound:
            del merge
            bound = partial(self.slope_of, leaf)
            slope, leaving = leaf.slope(radius, bound), leaf.reach(radius, bound)
            own = _Bound(slope, leaving, substitute(leaf.signature.target, source))
            self.seen[leaf.path] = source, radius, own
            return own

        return _Part(self, by_rule, *self.maps.leaf(leaf), (leaf.path,), leaf=True)

    def series(self, parts: Sequence[_Part]) -> _Part:
        flat = tuple(each for part in parts for each in part.parts or (part,))

        def by_rule(source: AnySpace, radius: Radius, merge: bool) -> _Bound:
            whole = _Bound(1.0, radius, source)
            for part in self.join_linear_runs(flat) if merge else parts:
                own = part.through(whole.target, whole.leaving, merge=merge)
                whole = _Bound(times(whole.slope, own.slope), own.leaving, own.target)
            return whole

        return self.composed(by_rule, self.maps.series, parts, flat)

    def parallel(self, parts: Sequence[_Part]) -> _Part:
        def by_rule(source: AnySpace, radius: Radius, merge: bool) -> _Bound:
            bounds = [part.through(source, radius, merge=merge) for part in parts]
            return _Bound(
                plus(each.slope for each in bounds),
                tuple(each.leaving for each in bounds),
                ProductSpace(tuple(each.target for each in bounds)),
            )

        return self.composed(by_rule, self.maps.parallel, parts)

    def sum(self, parts: Sequence[_Part]) -> _Part:
        def by_rule(source: AnySpace, radius: Radius, merge: bool) -> _Bound:
            addends = self.join_linear_addends(parts) if merge else parts
            bounds = [part.through(source, radius, merge=merge) for part in addends]
            sizes = added([each.leaving for each in bounds])
            return _Bound(plus(each.slope for each in bounds), sizes, bounds[0].target)

        return self.composed(by_rule, self.maps.sum, parts)

    def scale(self, factor: float, part: _Part) -> _Part:
        def by_rule(source: AnySpace, radius: Radius, merge: bool) -> _Bound:
            inside = part.through(source, radius, merge=merge)
            slope = times(abs(factor), inside.slope)
            return _Bound(slope, scaled(factor, inside.leaving), inside.target)

        maps = self.maps.scale(factor, (part.linear, part.matrix))
        return _Part(self, by_rule, *maps, part.paths)

    def composed(
        self,
        by_rule: ByRule,
        rule: Callable[[Sequence[tuple[bool, MapOf]]], tuple[bool, MapOf]],
        parts: Sequence[_Part],
        flat: tuple[_Part, ...] = (),
    ) -> _Part:
        paths = tuple(path for part in parts for path in part.paths)
        maps = rule([(part.linear, part.matrix) for part in parts])
        return _Part(self, by_rule, *maps, paths, flat)

    def as_one_map(self, part: _Part, source: AnySpace, radius: Radius, by_rule: _Bound) -> _Bound:
        """The part's bounds through its single matrix, if these are smaller than the bounds by rules."""
        if not isinstance(source, Space) or not isinstance(by_rule.target, Space):
            return by_rule
        one = part.matrix(source.size)
        if one is None:
            return by_rule
        shape = (by_rule.target.size, source.size)
        ends = through_l2(shape, source.norm, by_rule.target.norm)
        slope = one.largest_singular_value() * ends
        if not slope < by_rule.slope:
            return by_rule
        self.merged.append(part.paths)
        leaving = min(total(by_rule.leaving), times(slope, total(radius)))
        return _Bound(slope, leaving, by_rule.target)

    def join_linear_runs(self, parts: tuple[_Part, ...]) -> list[_Part]:
        """The parts of a series, with each run of linear neighbours joined into one series."""
        grouped: list[_Part] = []
        for merged, run in groupby(parts, lambda part: part.linear):
            neighbours = tuple(run)
            joined = merged and len(neighbours) > 1
            grouped.extend([self.series(neighbours)] if joined else neighbours)
        return grouped

    def join_linear_addends(self, parts: Sequence[_Part]) -> list[_Part]:
        """The parts of a sum, with all linear parts joined into one sum."""
        maps = [part for part in parts if part.linear]
        others = [part for part in parts if not part.linear]
        return [self.sum(maps), *others] if len(maps) > 1 else list(parts)
