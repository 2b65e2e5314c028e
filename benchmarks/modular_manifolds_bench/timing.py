"""Timing side by side: every contender once a round, in turn, with the same number of threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Final

import torch

from modular_manifolds.errors import ArgumentError

LEAST_ROUNDS = 3
"""The smallest number of rounds: a median of fewer is a single measurement."""


@dataclass(frozen=True)
class Contender:
    """A function to time: `prepare(round)` restores the start and is not timed; `run` is timed.

    Args:
        most: the largest number of rounds, for slow functions; with 1 there is no warm-up.
    """

    name: str
    prepare: Callable[[int], None]
    run: Callable[[], object]
    most: int | None = None


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians with the quartiles of the ratios within a round; None below two rounds."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Timings:
    """Seconds of every contender, round by round; round i of one ran beside round i of the others."""

    seconds: dict[str, tuple[float, ...]]

    def median(self, name: str) -> float:
        """The median over the rounds that `name` took part in."""
        return median(self.seconds[name])

    def ratio(self, name: str, other: str) -> Ratio:
        """`name` over `other`, of the rounds that both took part in."""
        pairs = list(zip(self.seconds[name], self.seconds[other], strict=False))
        value = median(a for a, _ in pairs) / median(b for _, b in pairs)
        if len(pairs) < 2:
            return Ratio(value, None, None)
        each = [a / b for a, b in pairs]
        low, _, high = quantiles(each, n=4, method="inclusive")
        return Ratio(value, low, high)


MAX_THREADS: Final = 1024
"""More threads than this are a mistake: the system would refuse them in the middle of a product."""


@contextmanager
def threads(count: int) -> Iterator[None]:
    """While inside, torch computes with `count` threads.

    Raises:
        ArgumentError: `count` is not a positive whole number, or more than a machine takes.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ArgumentError("threads", "must be a positive whole number", repr(count), "Pass 2.")
    if count > MAX_THREADS:
        raise ArgumentError("threads", f"must be at most {MAX_THREADS}", count, "Pass 2.")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleave(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    seconds: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
) -> Timings:
    """Time the contenders in rounds A B C A B C …, after one round that does not count.

    What else the machine does then hits all of them alike, and a ratio within a round is fair.

    Args:
        rounds: how many.
        seconds: start no further round once the timed steps took this long together, after the first
            three.
        clock: seconds that only grow.

    Raises:
        ArgumentError: `rounds` is not a positive whole number.
    """
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ArgumentError("rounds", "must be a positive whole number", repr(rounds), "Pass 20.")
    for each in contenders:
        if each.most != 1:
            each.prepare(0)
            each.run()
    taken: dict[str, list[float]] = {each.name: [] for each in contenders}
    for number in range(rounds):
        if number >= LEAST_ROUNDS and sum(map(sum, taken.values())) >= seconds:
            break
        for each in contenders:
            if each.most is not None and number >= each.most:
                continue
            each.prepare(number)
            start = clock()
            each.run()
            taken[each.name].append(clock() - start)
    return Timings({name: tuple(each) for name, each in taken.items()})
