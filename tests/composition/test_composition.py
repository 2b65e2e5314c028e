"""Masses, sensitivities and shares follow the composition rules on any tree: arithmetic, without a tensor."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from trees import EXACT, atom, factors, named, trees

from modular_manifolds.composition import (
    Tree,
    allocate,
    leaves,
)
from modular_manifolds.composition.tree import Leaf, Parallel, Scale, Series, Sum


def shares(tree: Tree) -> list[float]:
    return [row.share for row in allocate(tree, lr=1.0).rows]


def same_numbers(one: Tree, other: Tree) -> None:
    one, other = named(one), named(other)
    assert one.signature.mass == pytest.approx(other.signature.mass, rel=EXACT)
    assert one.signature.sensitivity == pytest.approx(other.signature.sensitivity, rel=EXACT)
    assert one.signature.rate_scale == pytest.approx(other.signature.rate_scale, rel=EXACT)
    a, b = allocate(one, lr=1.0), allocate(other, lr=1.0)
    assert [row.share for row in a.rows] == pytest.approx([row.share for row in b.rows], rel=EXACT)
    assert [row.radius for row in a.rows] == pytest.approx(
        [row.radius for row in b.rows], rel=EXACT
    )
    assert a.first_order == pytest.approx(b.first_order, rel=EXACT)


@given(
    a=trees(1, 2, 2, offsets=True), b=trees(2, 3, 2, offsets=True), c=trees(3, 1, 2, offsets=True)
)
def test_series_is_associative(a: Tree, b: Tree, c: Tree) -> None:
    flat = Series("", (a, b, c))
    left = Series("", (Series("", (a, b)), c))
    right = Series("", (a, Series("", (b, c))))
    same_numbers(left, right)
    same_numbers(left, flat)
    assert flat.signature == dataclasses.replace(
        left.signature,
        mass=flat.signature.mass,
        sensitivity=flat.signature.sensitivity,
        rate_scale=flat.signature.rate_scale,
    )


@given(
    a=trees(2, 1, 2, offsets=True), b=trees(2, 3, 2, offsets=True), c=trees(2, 2, 2, offsets=True)
)
def test_parallel_is_associative(a: Tree, b: Tree, c: Tree) -> None:
    flat = Parallel("", (a, b, c))
    left = Parallel("", (Parallel("", (a, b)), c))
    right = Parallel("", (a, Parallel("", (b, c))))
    same_numbers(left, right)
    same_numbers(left, flat)


@given(
    a=trees(2, 1, 2, offsets=True), b=trees(2, 1, 2, offsets=True), c=trees(2, 1, 2, offsets=True)
)
def test_sum_is_associative_and_has_the_numbers_of_parallel(a: Tree, b: Tree, c: Tree) -> None:
    flat = Sum("", (a, b, c))
    same_numbers(Sum("", (Sum("", (a, b)), c)), Sum("", (a, Sum("", (b, c)))))
    same_numbers(Sum("", (Sum("", (a, b)), c)), flat)
    same_numbers(flat, Parallel("", (a, b, c)))


@given(tree=trees(), factor=factors)
def test_scaling_up_scales_shares_down(tree: Tree, factor: float) -> None:
    scaled = Scale("", factor, tree)
    assert scaled.signature.mass == tree.signature.mass
    assert scaled.signature.sensitivity == pytest.approx(abs(factor) * tree.signature.sensitivity)
    assert scaled.signature.rate_scale == pytest.approx(abs(factor) * tree.signature.rate_scale)
    expected = [share / abs(factor) for share in shares(tree)]
    assert shares(scaled) == pytest.approx(expected, rel=EXACT)
    same_numbers(Scale("", -factor, tree), scaled)


@given(before=trees(1, 2, 1), after=trees(2, 1, 1), factor=factors)
def test_scaling_a_part_scales_its_own_shares_and_those_before_it(
    before: Tree, after: Tree, factor: float
) -> None:
    """In `before >> c·middle >> after`, what comes after c does not know of it."""
    middle = atom(2, 2)
    plain = shares(Series("", (before, middle, after)))
    scaled = shares(Series("", (before, Scale("", factor, middle), after)))
    touched = len(shares(before)) + 1
    expected = [s / abs(factor) if i < touched else s for i, s in enumerate(plain)]
    assert scaled == pytest.approx(expected, rel=EXACT)


@given(tree=trees(offsets=True))
def test_shares_times_what_is_downstream_sum_to_one(tree: Tree) -> None:
    rows = allocate(tree, lr=0.3).rows
    total = math.fsum(row.share * row.downstream * row.norm_constant for row in rows)
    assert total == pytest.approx(1.0 if tree.signature.mass > 0 else 0.0, rel=EXACT)
    for row in rows:
        part = row.mass / tree.signature.mass if tree.signature.mass > 0 else 0.0
        assert row.share * row.downstream * row.norm_constant == pytest.approx(part, rel=EXACT)
        assert row.step == 0.3 * row.share


@given(tree=trees(positive=True), data=st.data())
def test_a_mass_of_zero_freezes_and_leaves_the_ratios_of_the_others(
    tree: Tree, data: st.DataObject
) -> None:
    weights = [leaf.weight for leaf in leaves(tree) if leaf.weight is not None]
    assume(len(weights) >= 2)
    frozen = data.draw(st.sampled_from(weights))
    before, after = allocate(tree, lr=1.0), allocate(without_mass(tree, frozen), lr=1.0)
    row = next(row for row in before.rows if row.path == frozen)
    rest = 1 - row.mass / tree.signature.mass
    for path, share in after.shares.items():
        expected = 0.0 if path == frozen else before.shares[path] / rest
        assert share == pytest.approx(expected, rel=1e-9)


def without_mass(tree: Tree, weight: str) -> Tree:
    match tree:
        case Leaf():
            if tree.weight != weight:
                return tree
            return dataclasses.replace(
                tree, signature=dataclasses.replace(tree.signature, mass=0.0)
            )
        case Scale():
            return Scale(tree.path, tree.factor, without_mass(tree.part, weight))
        case _:
            return type(tree)(tree.path, tuple(without_mass(part, weight) for part in tree.parts))


@given(tree=trees(), times=st.floats(0.1, 10))
def test_only_the_ratios_of_masses_count(tree: Tree, times: float) -> None:
    def heavier(node: Tree) -> Tree:
        match node:
            case Leaf():
                signature = dataclasses.replace(node.signature, mass=times * node.signature.mass)
                return dataclasses.replace(node, signature=signature)
            case Scale():
                return Scale(node.path, node.factor, heavier(node.part))
            case _:
                return type(node)(node.path, tuple(heavier(part) for part in node.parts))

    assert shares(heavier(tree)) == pytest.approx(shares(tree), rel=EXACT)


def test_all_frozen_is_allowed() -> None:
    budget = allocate(Series("", (atom(mass=0.0), atom(mass=0.0))), lr=1.0)
    assert [row.share for row in budget.rows] == [0.0, 0.0]
    assert budget.first_order == 0.0
