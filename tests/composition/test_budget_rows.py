"""Trees are values, leaves come in the order of data, and a budget can be read."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import atom, named, trees

from modular_manifolds.composition import (
    Budget,
    Tree,
    allocate,
    leaves,
)
from modular_manifolds.composition.tree import Series
from modular_manifolds.errors import ArgumentError


@given(tree=trees(depth=4))
def test_rows_come_in_the_order_in_which_data_meets_the_weights(tree: Tree) -> None:
    rows = allocate(tree, lr=1.0).rows
    assert [row.path for row in rows] == [leaf.weight for leaf in leaves(tree) if leaf.weight]
    assert [row.path for row in rows] == [f"w{i}" for i in range(len(rows))]


@given(tree=trees(depth=4), lr=st.floats(0, 10))
def test_a_printed_budget_shows_every_row(tree: Tree, lr: float) -> None:
    budget = allocate(tree, lr)
    lines = str(budget).splitlines()
    if not budget.rows:
        assert lines == [f"budget of lr={lr:g}: the network has no weights"]
        return
    verdict = budget.verdict.split("; ")
    end = len(budget.rows) + 2
    assert lines[end:] == verdict
    assert lines[0].split() == budget.header()
    for line, row in zip(lines[2:end], budget.rows, strict=True):
        numbers = (row.mass, row.downstream, row.radius, row.share, row.step)
        assert line.split() == [row.path, row.manifold, row.norm, *(f"{n:.4g}" for n in numbers)]
    assert verdict[0].startswith(f"lr={lr:g}: one step moves the output by at most ")
    assert f" {lr * budget.first_order:.4g} to first order" in verdict[0]


def test_numbers_stand_to_the_right() -> None:
    budget = allocate(named(Series("", (atom(mass=10.0), atom(mass=0.25)))), lr=1.0)
    header, _, first, second, *_ = str(budget).splitlines()
    end = header.index("mass") + len("mass")
    assert (first[:end].split()[-1], second[:end].split()[-1]) == ("10", "0.25")


@pytest.mark.parametrize("lr", [-0.1, math.nan, math.inf, "0.1", None])
def test_bad_learning_rates_are_refused(lr: float) -> None:
    with pytest.raises(ArgumentError, match="lr must be finite and at least 0, got"):
        allocate(atom(), lr)


def test_a_learning_rate_of_zero_is_a_schedule_at_its_end() -> None:
    assert allocate(atom(), 0).rows[0].step == 0.0


def test_a_budget_is_a_value() -> None:
    tree = named(Series("", (atom(), atom())))
    assert allocate(tree, 0.1) == allocate(tree, 0.1)
    assert isinstance(allocate(tree, 0.1), Budget)
    with pytest.raises(dataclasses.FrozenInstanceError):
        allocate(tree, 0.1).lr = 0.2  # pyright: ignore[reportAttributeAccessIssue]
