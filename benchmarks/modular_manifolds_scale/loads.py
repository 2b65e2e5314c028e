"""Loads: the weights of each rank by the library's own placement, and the seconds of their products."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from modular_manifolds.optim.placement import Placement, cost_of, place
from modular_manifolds.optim.weight import Weight
from modular_manifolds.solvers.selection import find_solver
from modular_manifolds_scale.machine import Machine, Seconds
from modular_manifolds_scale.products import newton_schulz, products_of

ITEM: Final = 4
"""The bytes of a number of a weight, gradient or state: all are float32."""
SOLVE_LAUNCHES: Final = 40
"""Launches for all matrices of one shape. A step on GPT-2 small has 144 in all: docs/kernels.md."""
MUON_LAUNCHES: Final = 25
"""Launches for each matrix of `torch.optim.Muon`, which steps one after the other."""


@functools.lru_cache(maxsize=256)
def placed(weights: tuple[Weight, ...], ranks: int, *, replicate: bool = False) -> Placement:
    """The library's own placement of these weights."""
    return place(weights, ranks, solver="auto", replicate=replicate)


def by_rank(weights: Sequence[Weight], placement: Placement) -> list[tuple[Weight, ...]]:
    """The weights that each rank solves, without ranks that have none; all of them if no weight has an owner."""
    if not placement.owners:
        return [solved(weights)]
    found: dict[int, list[Weight]] = {}
    for each in weights:
        if each.name in placement.owners:
            found.setdefault(placement.owners[each.name], []).append(each)
    return [tuple(each) for each in found.values()]


def solved(weights: Iterable[Weight]) -> tuple[Weight, ...]:
    """The weights that cost products."""
    return tuple(each for each in weights if cost_of(each, "auto"))


def numbers(weights: Iterable[Weight]) -> int:
    """The numbers of these weights together."""
    return sum(math.prod(each.shape) for each in weights)


def solver_of(weight: Weight) -> str:
    """The name of the solver that the library chooses."""
    geometry = weight.geometry
    return find_solver(geometry.manifold, geometry.norm, "auto").name


def solves(machine: Machine, weights: Iterable[Weight], *, parts: int = 0) -> Seconds:
    """The products of these weights, one after the other.

    Args:
        machine: the rates.
        weights: those of one rank.
        parts: if not 0, one rank's work on matrices of which every rank holds one of so many parts.
    """
    counts = Counter((solver_of(each), _tall(each.shape)) for each in weights)
    seconds = machine.launches(SOLVE_LAUNCHES * len(counts))
    for (solver, shape), count in counts.items():
        seconds += _solve(machine, solver, shape, parts).times(count)
    return seconds


def muon_solves(machine: Machine, matrices: Sequence[Weight]) -> Seconds:
    """The Newton–Schulz steps of these matrices, one after the other."""
    seconds = machine.launches(MUON_LAUNCHES * len(matrices))
    for shape, count in Counter(_tall(each.shape) for each in matrices).items():
        for product in newton_schulz(shape[-2], shape[-1]):
            seconds += product.seconds(machine).times(count)
    return seconds


@functools.lru_cache(maxsize=1024)
def _solve(machine: Machine, solver: str, shape: tuple[int, ...], parts: int) -> Seconds:
    products = products_of(solver, shape, reduced=bool(parts))
    cut = [each.cut(parts) for each in products] if parts else products
    return sum((each.seconds(machine) for each in cut), Seconds())


def _tall(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-2], *sorted(shape[-2:], reverse=True))
