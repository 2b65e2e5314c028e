"""Bounds on norms: one number, or for a tuple one number for each of its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

Radius: TypeAlias = "float | tuple[Radius, ...]"
"""A bound on a norm. For a tuple of vectors, a number bounds the sum of their norms, and a tuple bounds each norm."""


def total(radius: Radius) -> float:
    """The radius as one number: the sum over the parts of a tuple."""
    return plus(total(part) for part in radius) if isinstance(radius, tuple) else radius


def mapped(function: Callable[[float], float], radius: Radius) -> Radius:
    """Apply `function` to every number of the radius."""
    if isinstance(radius, tuple):
        return tuple(mapped(function, part) for part in radius)
    return function(radius)


def scaled(factor: float, radius: Radius) -> Radius:
    """A bound on `c · x`."""
    return mapped(lambda size: times(abs(factor), size), radius)


def added(radii: Sequence[Radius]) -> Radius:
    """A bound on `x + y + …`: a tuple if all radii are tuples, otherwise one number."""
    tuples = [radius for radius in radii if isinstance(radius, tuple)]
    if len(tuples) < len(radii):
        return plus(total(radius) for radius in radii)
    return tuple(added(parts) for parts in zip(*tuples, strict=True))


def each_of(radius: Radius, count: int) -> tuple[Radius, ...]:
    """A bound on each of `count` parts; one number bounds every part."""
    return radius if isinstance(radius, tuple) else (radius,) * count


def plus(sizes: Iterable[float]) -> float:
    """The sum of bounds that are at least 0; infinite if it overflows."""
    try:
        return math.fsum(sizes)
    except OverflowError:
        return math.inf


def times(bound: float, size: float) -> float:
    """`bound · size`, with `0 · ∞ = 0`."""
    return 0.0 if bound == 0 or size == 0 else bound * size
