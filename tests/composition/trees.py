"""Random trees of modules, without tensors."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

from hypothesis import strategies as st

from modular_manifolds.composition import (
    SAME,
    Signature,
    Space,
    Tree,
)
from modular_manifolds.composition.tree import Leaf, Parallel, Scale, Series, Sum

EXACT = 1e-12
"""Relative rounding of a few dozen multiplications."""


def atom(
    into: int = 1,
    out: int = 1,
    *,
    mass: float = 1.0,
    sensitivity: float = 1.0,
    norm_constant: float = 1.0,
    offset: float = 0.0,
) -> Leaf:
    return Leaf(
        path="",
        label=f"Atom({into}, {out})",
        signature=Signature(mass, sensitivity, Space(into), Space(out)),
        lipschitz=sensitivity,
        offset=offset,
        weight="unnamed",
        manifold="Stiefel",
        norm="Spectral",
        norm_constant=norm_constant,
    )


def bond(sensitivity: float = 1.0) -> Leaf:
    return Leaf("", "Bond", Signature(0.0, sensitivity, None, SAME), lipschitz=sensitivity)


def named(tree: Tree) -> Tree:
    """The tree with every weight named by its place in the order in which data meets the weights."""
    count = iter(range(10_000))

    def name(node: Tree) -> Tree:
        match node:
            case Leaf():
                return dataclasses.replace(node, weight=f"w{next(count)}" if node.weight else None)
            case Scale():
                return Scale("", node.factor, name(node.part))
            case _:
                return type(node)("", tuple(name(part) for part in node.parts))

    return name(tree)


sizes = st.integers(1, 3)
factors = st.floats(0.1, 4).flatmap(lambda c: st.sampled_from([c, -c]))
sensitivities = st.floats(0.1, 3)
masses = st.floats(0.05, 5) | st.just(0.0)


@st.composite
def atoms(draw: st.DrawFn, into: int, out: int, *, positive: bool, offsets: bool) -> Leaf:
    return atom(
        into,
        out,
        mass=draw(st.floats(0.05, 5) if positive else masses),
        sensitivity=draw(sensitivities),
        norm_constant=draw(st.floats(0.5, 2)),
        offset=draw(st.floats(0, 1)) if offsets else 0.0,
    )


@st.composite
def trees(
    draw: st.DrawFn,
    into: int | None = None,
    out: int | None = None,
    depth: int = 3,
    *,
    positive: bool = False,
    offsets: bool = False,
    contracting: bool = False,
) -> Tree:
    """A random tree from `into` to `out` features.

    Args:
        depth: at most so many compositions deep.
        positive: no mass is zero.
        offsets: modules may map zero elsewhere.
        contracting: every subtree has a sensitivity of at most one.
    """
    a = draw(sizes) if into is None else into
    b = draw(sizes) if out is None else out

    def part(start: int, end: int) -> Tree:
        rest = {"positive": positive, "offsets": offsets, "contracting": contracting}
        return draw(trees(start, end, depth - 1, **rest))

    def parts(start: int, end: int) -> tuple[Tree, ...]:
        return tuple(part(start, end) for _ in range(draw(st.integers(1, 3))))

    match draw(
        st.sampled_from(["leaf", "series", "sum", "scale", "parallel"] if depth else ["leaf"])
    ):
        case "series":
            stops = [a, *draw(st.lists(sizes, max_size=2)), b]
            tree: Tree = Series("", tuple(part(start, end) for start, end in pairwise(stops)))
        case "sum":
            tree = Sum("", parts(a, b))
        case "scale":
            tree = Scale("", draw(factors), part(a, b))
        case "parallel":
            # A tuple, and an atom that takes it: what attention is made of.
            fan = tamed(Parallel("", parts(a, draw(sizes))), contracting)
            join = draw(atoms(1, b, positive=positive, offsets=offsets))
            signature = dataclasses.replace(join.signature, source=fan.signature.target)
            tree = Series("", (fan, dataclasses.replace(join, signature=signature)))
        case _:
            leaf = atoms(a, b, positive=positive, offsets=offsets)
            tree = draw(leaf | st.builds(bond, sensitivities) if a == b else leaf)
    return named(tamed(tree, contracting))


def tamed(tree: Tree, contracting: bool) -> Tree:
    """The tree scaled down to a sensitivity of at most one, if it shall be contracting."""
    slope = tree.signature.sensitivity
    return Scale("", 1 / slope, tree) if contracting and slope > 1 else tree
