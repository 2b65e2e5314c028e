"""One fold: five rules, any depth, and words for a kind of node that a table does not know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import pytest
import torch

import modular_manifolds as mm
from modular_manifolds.certificates.empirical import trace_leaves
from modular_manifolds.certificates.forward_error import forward_error
from modular_manifolds.certificates.inputs import takes_tokens
from modular_manifolds.certificates.linear_map import is_linear, matrix_of, matrix_product
from modular_manifolds.certificates.propagation import propagate
from modular_manifolds.composition import allocate, leaves
from modular_manifolds.composition.allocation import MOVED
from modular_manifolds.composition.folding import Algebra, fold, paired
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.signature import Signature
from modular_manifolds.composition.sizes import arrivals, downstream_slopes, output_bound, slope
from modular_manifolds.composition.tree import Parallel, Scale, Series, Sum, Tree
from modular_manifolds.errors import ArgumentError

SPACE: Final = mm.Space(2)


def leaf(path: str, mass: float = 1.0) -> Leaf:
    return Leaf(
        path,
        "f",
        Signature(mass, 1.0, SPACE, SPACE),
        1.0,
        weight=f"{path}.weight",
        forward=lambda x: x,
    )


WORDS: Final = Algebra(
    "words",
    leaf=lambda node: node.path,
    series=lambda parts: f"({' then '.join(parts)})",
    parallel=lambda parts: f"[{', '.join(parts)}]",
    sum=lambda parts: f"({' + '.join(parts)})",
    scale=lambda factor, part: f"{factor:g}·{part}",
)


def test_each_kind_has_its_rule_and_parts_come_in_the_order_of_data() -> None:
    tree = Series(
        "",
        (
            Scale("", -2.0, leaf("a")),
            Sum("", (leaf("b"), Series("", (leaf("c"), leaf("d"))))),
            Parallel("", (leaf("e"), leaf("f"))),
        ),
    )
    assert fold(tree, WORDS) == "(-2·a then (b + (c then d)) then [e, f])"
    assert [each.path for each in leaves(tree)] == list("abcdef")


def test_two_tables_are_one_table_of_pairs() -> None:
    count = Algebra("leaves", lambda _: 1, series=sum, parallel=sum, sum=sum, scale=lambda _, n: n)
    tree = Series(
        "",
        (
            Scale("", 2.0, leaf("a")),
            Sum("", (leaf("b"), leaf("c"))),
            Parallel("", (leaf("d"), leaf("e"))),
        ),
    )
    assert fold(tree, paired(WORDS, count)) == (fold(tree, WORDS), 5)


def test_what_stands_behind_a_leaf() -> None:
    """Behind a part of a series stand the later parts; beside it stands nothing."""
    tree = Scale("", -2.0, Series("", (leaf("a"), Sum("", (leaf("b"), leaf("c"))), leaf("d"))))
    assert downstream_slopes(tree, [5.0, 3.0, 7.0, 11.0]) == [
        2.0 * 11 * 10,
        2.0 * 11,
        2.0 * 11,
        2.0,
    ]


@pytest.mark.parametrize("kind", ["series", "scale", "sum"])
def test_a_fold_has_no_depth_limit(kind: str) -> None:
    tree: Tree = leaf("a")
    for _ in range(5000):
        match kind:
            case "series":
                tree = Series("", (tree,))
            case "scale":
                tree = Scale("", 1.0, tree)
            case _:
                tree = Sum("", (tree,))
    assert fold(tree, WORDS).count("a") == 1
    assert [each.path for each in leaves(tree)] == ["a"]


@pytest.mark.parametrize("kind", ["series", "scale"])
def test_what_travels_goes_hundreds_of_compositions_deep(kind: str) -> None:
    tree: Tree = leaf("a")
    for _ in range(900):
        tree = Series("", (tree,)) if kind == "series" else Scale("", 1.0, tree)
    assert output_bound(tree, 2.0) == 2.0
    assert slope(tree, 2.0) == 1.0
    assert allocate(tree, 1.0).shares == {"a.weight": 1.0}


@dataclass(frozen=True)
class Graph:
    """A kind of node that no table knows."""

    path: str
    parts: tuple[Tree, ...]
    signature: Signature


UNKNOWN: Final = cast("Tree", Graph("blocks", (leaf("a"),), leaf("a").signature))
TABLES: Final[dict[str, Callable[[Tree], object]]] = {
    "slopes and sizes": lambda tree: output_bound(tree, 1.0),
    "slopes and sizes leaf by leaf": lambda tree: propagate(
        tree, SPACE, 1.0, Leaf.lipschitz_within
    ),
    "the slopes downstream of each leaf": lambda tree: downstream_slopes(tree, [1.0]),
    "slopes and": lambda tree: arrivals(tree, 1.0, Leaf.lipschitz_within),
    "the leaves that a step moves": lambda tree: fold(tree, MOVED),
    "slopes": lambda tree: allocate(tree, 1.0),
    "linear parts": lambda tree: fold(tree, is_linear(matrix_of)),
    "linear maps": lambda tree: fold(tree, matrix_product(matrix_of)),
    "rounding errors": lambda tree: forward_error(
        tree, SPACE, 1.0, Leaf.lipschitz_within, torch.float32
    ),
    "outputs leaf by leaf": lambda tree: trace_leaves(tree, torch.ones(1, 2)),
    "the leaves that take the network's input": takes_tokens,
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_that_it_does_not_know_a_kind_of_node(name: str) -> None:
    """A new kind of node gets words, naming the table and the node, wherever it has no rule yet."""
    for tree in (UNKNOWN, Series("", (UNKNOWN,))):
        with pytest.raises(ArgumentError, match=f"rules of {name}.*got Graph at 'blocks'"):
            TABLES[name](tree)


def test_a_trace_needs_a_function_and_a_path_for_every_leaf() -> None:
    x: Any = torch.ones(1, 2)
    nameless = Leaf("a", "f", Signature(0.0, 1.0, SPACE, SPACE), 1.0)
    for tree in (nameless, Series("", (leaf("a"), leaf("a")))):
        with pytest.raises(LookupError, match="a"):
            trace_leaves(tree, x)
    assert list(trace_leaves(Series("", (leaf("a"), leaf("b"))), x)[1]) == ["a", "b"]
