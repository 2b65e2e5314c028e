"""The search for the best learning rates: a fixed number of runs on a grid, the same for every rate.

A point of the grid has one whole number k for each rate, which is `centre · 2^(k/2)`. So a notch is a factor of √2. From
the best point so far, the search tries factors of 2 before factors of √2. Two rates move together first, up and down; then
the second moves alone, and by √2 the first alone. When every such neighbour of the best point is known, the runs that are
left widen the curve of the best point.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, count
from typing import Final

Point = tuple[int, ...]

NOTCHES: Final = (2, 1)
"""The steps of the search in notches: factors of 2, then of √2."""


def rates_at(centre: tuple[float, ...], point: Point) -> tuple[float, ...]:
    """The rates of a point, rounded so that every machine finds the same."""
    return tuple(float(f"{c * 2 ** (k / 2):.8g}") for c, k in zip(centre, point, strict=True))


def moved(point: Point, notches: int) -> Point:
    """The point with all rates moved by so many notches."""
    return tuple(k + notches for k in point)


def best_point(losses: Mapping[Point, float]) -> Point:
    """The point with the least loss, the first one of equals."""
    return min(losses, key=lambda point: losses[point])


def is_finished(losses: Mapping[Point, float], rates: int) -> bool:
    """Whether every neighbour of the best point is known."""
    return bool(losses) and all(p in losses for p in _neighbours(best_point(losses), rates))


def next_point(losses: Mapping[Point, float], rates: int) -> Point:
    """The point to run next.

    Args:
        losses: the losses of the points that were run, infinite if a run diverged.
        rates: the number of rates, one or two.
    """
    if not losses:
        return (0,) * rates
    best = best_point(losses)
    candidates = chain(_neighbours(best, rates), _wider(best))
    return next(point for point in candidates if point not in losses)


def _neighbours(point: Point, rates: int) -> Iterator[Point]:
    for notches in NOTCHES:
        for signed in (notches, -notches):
            yield moved(point, signed)
        if rates == 2:
            for signed in (notches, -notches):
                yield point[0], point[1] + signed
    if rates == 2:
        for signed in (1, -1):
            yield point[0] + signed, point[1]


def _wider(point: Point) -> Iterator[Point]:
    """Points ever further from the best one: first at factors of 4, then of 2√2, 8, 4√2 and so on."""
    for notches in count(4, 2):
        for signed in (notches, -notches, notches - 1, 1 - notches):
            yield moved(point, signed)
