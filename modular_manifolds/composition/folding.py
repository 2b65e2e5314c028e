"""The fold over a tree: five rules, one for each kind of node, applied from the leaves to the root."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.tree import Parallel, Scale, Series, Sum, Tree
from modular_manifolds.errors import ArgumentError

A = TypeVar("A")
B = TypeVar("B")
X = TypeVar("X")
Y = TypeVar("Y")


@dataclass(frozen=True)
class Algebra(Generic[A]):
    """Five rules that give the value of a node from the values of its parts.

    Args:
        name: the quantity that the rules compute, for errors.
        leaf: the value of a leaf.
        series: the value of `g(f(x))` from those of f and g, in the order of data.
        parallel: the value of `(f(x), g(x))`.
        sum: the value of `f(x) + g(x)`.
        scale: the value of `c · f(x)` from c and that of f.
    """

    name: str
    leaf: Callable[[Leaf], A]
    series: Callable[[Sequence[A]], A]
    parallel: Callable[[Sequence[A]], A]
    sum: Callable[[Sequence[A]], A]
    scale: Callable[[float, A], A]


def fold(tree: Tree, rules: Algebra[A]) -> A:
    """The value of `tree` by `rules`. Leaves are visited in the order of data; trees may have any depth.

    Raises:
        ArgumentError: a node is of a kind that the rules do not know.
    """
    stack, nodes = [tree], list[Tree]()
    while stack:
        node = stack.pop()
        nodes.append(node)
        stack.extend(node.parts)
    # In reverse order every node comes after its parts, and the first part before the second.
    values: list[A] = []
    for node in reversed(nodes):
        first = len(values) - len(node.parts)
        parts = values[first:]
        values[first:] = [_by_rule(node, parts, rules)]
    return values[0]


def _by_rule(node: Tree, parts: list[A], rules: Algebra[A]) -> A:
    match node:
        case Leaf():
            return rules.leaf(node)
        case Series():
            return rules.series(parts)
        case Parallel():
            return rules.parallel(parts)
        case Sum():
            return rules.sum(parts)
        case Scale():
            return rules.scale(node.factor, parts[0])
        case _:
            raise _no_rule(node, rules.name)


def _no_rule(node: object, name: str) -> ArgumentError:
    return ArgumentError(
        f"the rules of {name}",
        "must know every kind of node in the tree",
        f"{type(node).__name__} at '{getattr(node, 'path', '')}'",
        "Compose the tree of Leaf, Series, Parallel, Sum and Scale, or give the table a rule for this kind.",
    )


def paired(first: Algebra[A], second: Algebra[B]) -> Algebra[tuple[A, B]]:
    """The rules whose value is the pair of the values of two algebras."""

    def on_pairs(
        one: Callable[[Sequence[A]], A], other: Callable[[Sequence[B]], B]
    ) -> Callable[[Sequence[tuple[A, B]]], tuple[A, B]]:
        return lambda parts: (one([a for a, _ in parts]), other([b for _, b in parts]))

    return Algebra(
        f"{first.name} and {second.name}",
        leaf=lambda node: (first.leaf(node), second.leaf(node)),
        series=on_pairs(first.series, second.series),
        parallel=on_pairs(first.parallel, second.parallel),
        sum=on_pairs(first.sum, second.sum),
        scale=lambda c, part: (first.scale(c, part[0]), second.scale(c, part[1])),
    )


def carried(
    name: str,
    *,
    leaf: Callable[[Leaf, X], Y],
    onward: Callable[[Y], X],
    then: Callable[[Y, Y], Y],
    parallel: Callable[[Sequence[Y]], Y],
    total: Callable[[Sequence[Y]], Y],
    scale: Callable[[float, Y], Y],
) -> Algebra[Callable[[X], Y]]:
    """The rules of a value that depends on the node's input: the value of a node is a function from X to Y.

    Parts side by side get the same input; `parallel` or `total` joins their values. In a series the next part gets
    `onward(value)` of the parts before it, and `then` joins the two values.
    """

    def in_series(parts: Sequence[Callable[[X], Y]]) -> Callable[[X], Y]:
        def through(x: X) -> Y:
            value = parts[0](x)
            for part in parts[1:]:
                value = then(value, part(onward(value)))
            return value

        return through

    return Algebra(
        name,
        leaf=lambda node: lambda x: leaf(node, x),
        series=in_series,
        parallel=lambda parts: lambda x: parallel([part(x) for part in parts]),
        sum=lambda parts: lambda x: total([part(x) for part in parts]),
        scale=lambda factor, part: lambda x: scale(factor, part(x)),
    )


def flow(
    name: str,
    *,
    leaf: Callable[[Leaf, X], X],
    parallel: Callable[[Sequence[X]], X],
    total: Callable[[Sequence[X]], X],
    scale: Callable[[float, X], X],
) -> Algebra[Callable[[X], X]]:
    """The rules of a value that flows with the data: in a series the value of a part is the input of the next."""
    return carried(
        name,
        leaf=leaf,
        onward=lambda x: x,
        then=lambda _, x: x,
        parallel=parallel,
        total=total,
        scale=scale,
    )
