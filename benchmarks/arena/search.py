"""The search for an arm's best values: a fixed number of runs on a grid, the same for every value.

A point of the grid has one whole number k for each value, which is `centre · 2^(k/2)`. So a notch is a factor of √2. From
the best point so far, the search tries factors of 2 before factors of √2, along each direction of the arm, up and down. When
every such neighbour of the best point is known, the runs that are left widen the curve of the best point along the first
direction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Final

Point = tuple[int, ...]

NOTCHES: Final = (2, 1)
"""The steps of the search in notches: factors of 2, then of √2."""


def values_at(centre: tuple[float, ...], point: Point) -> tuple[float, ...]:
    """The values of a point, rounded so that every machine finds the same."""
    return tuple(float(f"{c * 2 ** (k / 2):.8g}") for c, k in zip(centre, point, strict=True))


def moved(point: Point, direction: Point, notches: int) -> Point:
    """The point after a move of so many notches."""
    return tuple(k + notches * d for k, d in zip(point, direction, strict=True))


def best_point(losses: Mapping[Point, float]) -> Point:
    """The point with the least loss, the first one of equals."""
    return min(losses, key=lambda point: losses[point])


def is_finished(losses: Mapping[Point, float], directions: Sequence[Point]) -> bool:
    """Whether every neighbour of the best point is known."""
    return bool(losses) and all(p in losses for p in _neighbours(best_point(losses), directions))


def next_point(losses: Mapping[Point, float], directions: Sequence[Point]) -> Point:
    """The point to run next.

    Args:
        losses: the losses of the points that were run, infinite if a run diverged.
        directions: the moves of one notch: `(1, 1)` moves two values together.
    """
    if not losses:
        return (0,) * len(directions[0])
    best = best_point(losses)
    candidates = chain(_neighbours(best, directions), _wider(best, directions[0]))
    return next(point for point in candidates if point not in losses)


def _neighbours(point: Point, directions: Sequence[Point]) -> Iterator[Point]:
    for notches in NOTCHES:
        for direction in directions:
            yield moved(point, direction, notches)
            yield moved(point, direction, -notches)


def _wider(point: Point, direction: Point) -> Iterator[Point]:
    """Points ever further from the best one: first at factors of 4, then of 2√2, 8, 4√2 and so on."""
    for notches in count(4, 2):
        for signed in (notches, -notches, notches - 1, 1 - notches):
            yield moved(point, direction, signed)
