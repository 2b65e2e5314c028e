"""How large a value may be: one number, or for a tuple a number for each of its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

Radius: TypeAlias = "float | tuple[Radius, ...]"
"""A bound on a norm. On tuples a number bounds the sum of the norms of the parts, a tuple bounds part by part."""


def total(radius: Radius) -> float:
    """A bound on the norm: the sum over the parts of a tuple."""
    return plus(total(part) for part in radius) if isinstance(radius, tuple) else radius


def mapped(function: Callable[[float], float], radius: Radius) -> Radius:
    """`function` of every number."""
    if isinstance(radius, tuple):
        return tuple(mapped(function, part) for part in radius)
    return function(radius)


def scaled(factor: float, radius: Radius) -> Radius:
    """A bound on `c · x`."""
    return mapped(lambda size: times(abs(factor), size), radius)


def added(radii: Sequence[Radius]) -> Radius:
    """A bound on `x + y + …`: part by part if all are known part by part, else on the whole."""
    tuples = [radius for radius in radii if isinstance(radius, tuple)]
    if len(tuples) < len(radii):
        return plus(total(radius) for radius in radii)
    return tuple(added(parts) for parts in zip(*tuples, strict=True))


def each_of(radius: Radius, count: int) -> tuple[Radius, ...]:
    """A bound on each of `count` parts: no part is larger than the whole."""
    return radius if isinstance(radius, tuple) else (radius,) * count


def plus(sizes: Iterable[float]) -> float:
    """The sum of bounds that are at least 0; infinite, as a product would be, if it overflows."""
    try:
        return math.fsum(sizes)
    except OverflowError:
        return math.inf


def times(bound: float, size: float) -> float:
    """`bound · size`, with `0 · ∞ = 0`."""
    return 0.0 if bound == 0 or size == 0 else bound * size
