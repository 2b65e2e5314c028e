"""Random networks as data: every node that specifications know, nested, with spaces that fit."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

import modular_manifolds as mm
from modular_manifolds.solvers import TABLE
from modular_manifolds.specs.table import MANIFOLDS, NORMS

BONDS = ["identity", "relu", "abs", "max_min", "gelu", "flatten"]
NAMES = ["first", "0", "1", "relu", "linear", "kind", "no", "1e3", "null", "~", "größe", "a b"]
"""Among them names that are types too, numbers, and what another YAML would not read as text."""

PAIRS = [
    (manifold, norm)
    for manifold, m in MANIFOLDS.items()
    for norm, n in NORMS.items()
    if (m, n) in TABLE
]

sizes = st.integers(1, 4)

MODELS: dict[str, tuple[Callable[..., mm.Module], dict[str, Any]]] = {
    "MLP": (mm.models.MLP, {"in_features": 6, "classes": 3, "hidden": (4,)}),
    "ResidualMLP": (mm.models.ResidualMLP, {"in_features": 6, "classes": 3, "width": 4}),
    "ConvNet": (
        mm.models.ConvNet,
        {"in_channels": 1, "classes": 3, "size": (4, 4), "width": 2, "depth": 1},
    ),
    "GPT": (mm.models.GPT, {"vocabulary": 5, "width": 8, "depth": 1, "heads": 2, "kv_heads": 1}),
}
"""Every model, with arguments that make it small."""


@st.composite
def linears(draw: st.DrawFn, into: int, out: int) -> dict[str, Any]:
    # Rows of one entry have no zero mean.
    pairs = [(m, n) for m, n in PAIRS if into > 1 or m != "balanced_rows"]
    manifold, norm = draw(st.sampled_from(pairs))
    where: dict[str, Any] = {"type": manifold}
    if manifold != "euclidean" and draw(st.booleans()):
        where["radius"] = draw(st.floats(0.1, 10))
    node = {
        "type": "linear",
        "in_features": into,
        "out_features": out,
        "manifold": where if len(where) > 1 or draw(st.booleans()) else manifold,
        "norm": draw(st.sampled_from([norm, {"type": norm}])),
        "source_norm": "l2",
        "target_norm": "l2",
    }
    if draw(st.booleans()):
        node["mass"] = draw(st.floats(0, 5) | st.integers(0, 5))
    return node


def bonds() -> st.SearchStrategy[Any]:
    return st.sampled_from(BONDS) | st.sampled_from(BONDS).map(lambda name: {"type": name})


@st.composite
def rows(draw: st.DrawFn, parts: list[Any]) -> Any:
    """The parts as a list, or under names."""
    if draw(st.booleans()):
        return parts
    names = draw(st.permutations(NAMES))
    return dict(zip(names, parts, strict=False))


@st.composite
def modules(draw: st.DrawFn, into: int, out: int, depth: int) -> Any:
    """A module from `into` to `out` features, at most `depth` compositions deep."""
    leaf = linears(into, out) | bonds() if into == out else linears(into, out)
    kinds = ["leaf", "series", "sum", "scale"] + (["residual", "power"] if into == out else [])
    match draw(st.sampled_from(kinds if depth else ["leaf"])):
        case "series":
            stops = [into, *draw(st.lists(sizes, max_size=2)), out]
            parts = [draw(modules(a, b, depth - 1)) for a, b in pairwise(stops)]
            return {"type": "series", "modules": draw(rows(parts))}
        case "sum":
            parts = draw(st.lists(modules(into, out, depth - 1), min_size=1, max_size=3))
            return {"type": "sum", "modules": draw(rows(parts))}
        case "scale":
            factor = draw(st.floats(0.1, 4)) * draw(st.sampled_from([-1, 1]))
            return {
                "type": "scale",
                "module": draw(modules(into, out, depth - 1)),
                "factor": factor,
            }
        case "residual":
            block = draw(modules(into, out, depth - 1))
            return {"type": "residual", "block": block, "depth": draw(st.integers(1, 4))}
        case "power":
            module = draw(modules(into, out, depth - 1))
            return {"type": "power", "module": module, "times": draw(st.integers(1, 3))}
        case _:
            return draw(leaf)


@st.composite
def networks(draw: st.DrawFn) -> Any:
    """A whole network; some give a tuple."""
    into = draw(sizes)
    if draw(st.integers(0, 3)):
        return draw(modules(into, draw(sizes), 3))
    parts = [draw(modules(into, draw(sizes), 2)) for _ in range(draw(st.integers(1, 3)))]
    return {"type": "parallel", "modules": draw(rows(parts))}
