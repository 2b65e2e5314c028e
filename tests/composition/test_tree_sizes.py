"""Sizes of inputs and outputs follow the tree, part by part."""

from __future__ import annotations

import math
from typing import Any

import pytest

from modular_manifolds.composition import (
    SAME,
    ProductSpace,
    Signature,
    Space,
)
from modular_manifolds.composition.radius import Radius, added, each_of, scaled, total
from modular_manifolds.composition.sizes import output_bound, slope
from modular_manifolds.composition.tree import Leaf, Parallel, Scale, Series
from modular_manifolds.errors import ArgumentError


def bond_at(path: str, sensitivity: float, **more: Any) -> Leaf:
    """A bond on any space, unless `source` says otherwise."""
    source, target = more.pop("source", None), more.pop("target", SAME)
    own = Signature(0.0, sensitivity, source, target)
    return Leaf(path, path, own, lipschitz=sensitivity, **more)


def test_the_parts_of_a_tuple_keep_their_sizes() -> None:
    """A product x·y, whose slope is the larger of the two sizes, is told both of them."""
    line = Space(1)
    told: list[Radius] = []

    def within(radius: Radius) -> float:
        told.append(radius)
        first, second = each_of(radius, 2)
        return max(total(first), total(second))

    times = bond_at("times", 1.0, source=ProductSpace((line, line)), target=line, within=within)
    two = Parallel(
        "", (bond_at("a", 2.0, source=line, target=line), Scale("", -5.0, bond_at("b", 1.0)))
    )
    tree = Series("", (two, bond_at("any", 1.0, offset=0.5), times))
    # 2 and 5, and half more through the offset of each part.
    assert slope(tree, 1.0) == pytest.approx(7 * 5.5)
    assert set(told) == {(2.5, 5.5)}
    assert output_bound(tree, 1.0) == pytest.approx(5.5 * 8)
    assert slope(times, 3.0) == 3.0


def test_a_slope_that_grows_is_taken_part_by_part() -> None:
    square = bond_at("square", 1.0, within=total)
    assert slope(square, (1.0, (4.0, 2.0))) == 4.0
    assert output_bound(square, (1.0, (4.0, 2.0))) == (1.0, (16.0, 4.0))


def test_an_output_is_no_larger_than_its_module_ever_gives() -> None:
    tree = Series("", (Scale("", 9.0, bond_at("a", 1.0)), bond_at("b", 2.0, largest=3.0)))
    assert output_bound(tree, 0.1) == pytest.approx(1.8)
    assert output_bound(tree, 1.0) == output_bound(tree, math.inf) == 3.0
    with pytest.raises(ArgumentError, match="largest must be at least 0"):
        bond_at("c", 1.0, largest=-1.0)


def test_sizes_add_part_by_part_where_they_are_known_so() -> None:
    assert added([(1.0, 2.0), (3.0, 4.0)]) == (4.0, 6.0)
    assert added([(1.0, 2.0), 3.0]) == 6.0
    assert scaled(-2.0, (1.0, (math.inf, 0.0))) == (2.0, (math.inf, 0.0))
    assert total((1.0, (2.0, 3.0))) == 6.0
