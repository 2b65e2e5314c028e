"""Random networks with their formulas, and one deep network with every composition."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import cases
import torch
from hypothesis import strategies as st
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.solvers import TABLE

Formula = Callable[[Any], Any]

PAIRS = [(m, norm()) for kind, norm in TABLE for m in cases.instances(kind)]


def sorted_pairs(x: Tensor) -> Tensor:
    columns = list(x.unbind(-1))
    for i in range(0, len(columns) - 1, 2):
        a, b = columns[i], columns[i + 1]
        columns[i], columns[i + 1] = torch.maximum(a, b), torch.minimum(a, b)
    return torch.stack(columns, dim=-1)


BONDS: dict[type[mm.Bond], Formula] = {
    mm.Identity: lambda x: x,
    mm.ReLU: lambda x: torch.where(x > 0, x, 0.0),
    mm.Abs: lambda x: torch.maximum(x, -x),
    mm.GELU: lambda x: x * torch.special.ndtr(x) / 1.1289042,
    mm.MaxMin: sorted_pairs,
    mm.Flatten: lambda x: x.reshape(len(x), -1),
}


def linear(into: int, out: int, **arguments: Any) -> mm.Linear:
    """A linear map in l2, of any geometry."""
    return mm.Linear(into, out, **{"source_norm": "l2", "target_norm": "l2", **arguments})


sizes = st.integers(1, 4)


@st.composite
def networks(draw: st.DrawFn, into: int, out: int, depth: int = 3) -> tuple[mm.Module, Formula]:
    """A random network in float64, and the formula that it should compute."""

    def part(a: int, b: int) -> tuple[mm.Module, Formula]:
        return draw(networks(a, b, depth - 1))

    kinds = ["linear", "series", "sum", "scale"] + (["bond", "residual"] if into == out else [])
    match draw(st.sampled_from(kinds if depth else kinds[:1])):
        case "series":
            stops = [into, *draw(st.lists(sizes, max_size=2)), out]
            modules, formulas = zip(*(part(a, b) for a, b in pairwise(stops)), strict=True)
            return mm.Series(*modules), in_turn(formulas)
        case "sum":
            modules, formulas = zip(
                *(part(into, out) for _ in range(draw(st.integers(1, 3)))), strict=True
            )
            return mm.Sum(*modules), lambda x: torch.stack([f(x) for f in formulas]).sum(dim=0)
        case "scale":
            module, formula = part(into, out)
            factor = draw(st.floats(0.1, 3)) * draw(st.sampled_from([-1, 1]))
            return factor * module, lambda x: formula(x).mul(factor)
        case "residual":
            module, formula = part(into, out)
            times = draw(st.integers(1, 4))
            return mm.Residual(module, depth=times), lambda x: x + (formula(x) - x) / times
        case "bond":
            kind = draw(st.sampled_from(list(BONDS)))
            return kind(), BONDS[kind]
        case _:
            fitting = [(m, n) for m, n in PAIRS if cases.fits(m, (out, into))]
            manifold, norm = draw(st.sampled_from(fitting))
            atom = linear(into, out, manifold=manifold, norm=norm, mass=draw(st.floats(0, 3)))
            return atom.double(), lambda x: torch.einsum("oi,bi->bo", atom.weight, x)


def in_turn(formulas: tuple[Formula, ...]) -> Formula:
    def run(x: Any) -> Any:
        for formula in formulas:
            x = formula(x)
        return x

    return run


def deep() -> mm.Module:
    body = mm.Series(first=mm.Linear(4, 4), act=mm.ReLU(), last=mm.Linear(4, 4))
    return (
        mm.Linear(3, 4)
        >> mm.Residual(body, depth=2) ** 2
        >> (mm.Linear(4, 5) + 2.0 * mm.Linear(4, 5))
        >> mm.Series(mm.Parallel(query=mm.Linear(5, 2), key=-1.0 * mm.Linear(5, 2)), mm.MaxMin())
    )
