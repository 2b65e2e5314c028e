"""The budget unrolls the recursive modular norm of MATH section 3; its radii and downstream factors are those of the function.

The function is tried with every module the map x to s·x + offset.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import EXACT, atom, named, trees

from modular_manifolds.composition import (
    Tree,
    allocate,
)
from modular_manifolds.composition.radius import total
from modular_manifolds.composition.sizes import output_bound
from modular_manifolds.composition.tree import Leaf, Parallel, Scale, Series, Sum


def recursive_norm(tree: Tree, lengths: dict[str, float]) -> float:
    """The norm of a composition from the norms of its parts; a part without weights adds nothing."""
    match tree:
        case Leaf():
            return 0.0 if tree.weight is None else tree.norm_constant * lengths[tree.weight]
        case Scale():
            return abs(tree.factor) * recursive_norm(tree.part, lengths)
        case Series():
            return pairwise_norm(tree.parts, lengths, in_series=True)
        case Parallel() | Sum():
            return pairwise_norm(tree.parts, lengths, in_series=False)


def pairwise_norm(parts: Sequence[Tree], lengths: dict[str, float], *, in_series: bool) -> float:
    """`max(s_g · (m/m_f) ‖w_f‖, (m/m_g) ‖w_g‖)`, without s_g in parallel, two at a time from the left."""
    norm, mass = recursive_norm(parts[0], lengths), parts[0].signature.mass
    for part in parts[1:]:
        other, own = recursive_norm(part, lengths), part.signature.mass
        total = mass + own
        downstream = part.signature.rate_scale if in_series else 1.0
        norm = max(downstream * over(total * norm, mass), over(total * other, own))
        mass = total
    return norm


def over(value: float, mass: float) -> float:
    if value == 0.0:
        return 0.0
    return value / mass if mass > 0 else math.inf


@given(tree=trees(depth=4), data=st.data())
def test_the_budget_unrolls_the_recursive_norm(tree: Tree, data: st.DataObject) -> None:
    """`max_i ‖w_i‖/share_i` is the recursive norm of the whole, whatever the tree."""
    split = allocate(tree, lr=1.0).shares
    # A frozen weight that moves is infinitely long on both sides, which compares nothing.
    lengths = {
        path: data.draw(st.floats(0.01, 10)) if share > 0 else 0.0 for path, share in split.items()
    }
    unrolled = max((over(lengths[path], share) for path, share in split.items()), default=0.0)
    assert recursive_norm(tree, lengths) == pytest.approx(unrolled, rel=EXACT)


def test_moving_a_frozen_weight_is_infinitely_long_both_ways() -> None:
    tree = named(Series("", (atom(mass=0.0), atom())))
    lengths = {"w0": 1.0, "w1": 1.0}
    assert recursive_norm(tree, lengths) == math.inf
    assert max(over(lengths[k], s) for k, s in allocate(tree, lr=1.0).shares.items()) == math.inf


def signals(
    tree: Tree, x: float, moves: dict[str, float], arriving: dict[str, float] | None = None
) -> list[float]:
    """The outputs of the scalar network; `moves` is added to the output of an atom.

    Factors count by their size, so that branches add up as in the worst case.
    """
    match tree:
        case Leaf():
            if tree.weight is None:
                return [tree.signature.sensitivity * x]
            if arriving is not None:
                arriving[tree.weight] = abs(x)
            return [tree.signature.sensitivity * x + tree.offset + moves.get(tree.weight, 0.0)]
        case Scale():
            return [abs(tree.factor) * y for y in signals(tree.part, x, moves, arriving)]
        case Series():
            outputs = [x]
            for part in tree.parts:
                # The norm of a tuple is the sum over its parts.
                outputs = signals(part, math.fsum(outputs), moves, arriving)
            return outputs
        case Sum():
            return [math.fsum(y for part in tree.parts for y in signals(part, x, moves, arriving))]
        case Parallel():
            return [y for part in tree.parts for y in signals(part, x, moves, arriving)]


@given(tree=trees(depth=4, offsets=True))
def test_downstream_is_how_far_an_output_is_moved(tree: Tree) -> None:
    still = math.fsum(signals(tree, 1.0, {}))
    for row in allocate(tree, lr=1.0).rows:
        moved = math.fsum(signals(tree, 1.0, {row.path: 1.0}))
        assert moved - still == pytest.approx(row.downstream, rel=1e-6, abs=1e-9 * still)


@given(tree=trees(depth=4, offsets=True))
def test_radius_is_what_arrives(tree: Tree) -> None:
    arriving: dict[str, float] = {}
    out = signals(tree, 1.0, {}, arriving)
    assert math.fsum(out) == pytest.approx(output_bound(tree, 1.0), rel=1e-9)
    for row in allocate(tree, lr=1.0).rows:
        assert row.radius == pytest.approx(arriving[row.path], rel=1e-9)


@given(tree=trees(depth=4, contracting=True))
def test_one_step_moves_the_output_by_at_most_the_learning_rate(tree: Tree) -> None:
    """With all sensitivities at most one and no offsets, inputs stay in their unit balls."""
    budget = allocate(tree, lr=1.0)
    assert budget.first_order <= 1 + EXACT
    assert all(row.radius <= 1 + EXACT for row in budget.rows)
    assert total(output_bound(tree, 1.0)) <= 1 + EXACT


def test_a_radius_above_one_is_reported() -> None:
    """A module that doubles its input makes what comes after it move twice as far."""
    budget = allocate(named(Series("", (atom(sensitivity=2.0), atom()))), lr=1.0)
    assert [row.radius for row in budget.rows] == [1.0, 2.0]
    assert budget.first_order == pytest.approx(1.5)
    shifted = allocate(named(Series("", (atom(offset=0.5), atom()))), lr=1.0)
    assert [row.radius for row in shifted.rows] == [1.0, 1.5]
