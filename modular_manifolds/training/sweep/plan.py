"""The plan of a sweep: its sizes, arms, learning rates and seeds."""

from __future__ import annotations

import itertools
import math
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from modular_manifolds.arguments import check_count, check_unlike
from modular_manifolds.errors import ArgumentError
from modular_manifolds.specs import RunSpec

RANGE: Final = re.compile(r"2\^(-?\d+(?:\.[05])?)\.\.2\^(-?\d+(?:\.[05])?)")
LARGEST_EXPONENT: Final = 64
"""The largest exponent of 2 in a range of rates; steps of single precision overflow from about 100 on."""
MAX_RUNS: Final = 10_000
"""The default limit on the runs of a sweep."""
NO_SIZE: Final = {
    "optimizer.lr": "Give the rates by --lr or --arm-lr.",
    "optimizer.name": "Name each optimiser by --arm.",
    "seed": "Write --seeds for several runs at each rate, and --set seed=N for the first.",
    "data": "The runs of a sweep share their data: set it by --set, or start a sweep for each.",
    "device": "The runs of a sweep share their device: write --device.",
    "parallel": "The runs of a sweep have one process each: write --jobs.",
    "tensorboard": "The runs of a sweep write no events: leave it out.",
}
"""Keys that neither a size nor an arm can set, and the remedy. An arm begins with `optimizer.name`."""
OPTIMIZER_TITLES: Final = {
    "steepest-descent": "Steepest descent",
    "adamw": "AdamW",
    "muon": "Muon",
}
"""The names of optimisers in pictures."""
NEXT_ASSIGNMENT: Final = re.compile(r",(?=[A-Za-z_][\w.]*=)")

Grid = Literal["full", "coarse", "refined"]
"""The factor between rates: √2; 2; or 2, and then the two rates that are √2 from the best of each curve."""


@dataclass(frozen=True)
class Size:
    """The assignments that set one size, such as `model.width=64`; empty for the unchanged run."""

    assignments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ", ".join(each.removeprefix("model.") for each in self.assignments) or "as given"


@dataclass(frozen=True)
class Arm:
    """An optimiser with further assignments, such as `adamw,optimizer.weight_decay=0.1`."""

    text: str

    @property
    def assignments(self) -> tuple[str, ...]:
        optimizer, *others = NEXT_ASSIGNMENT.split(self.text)
        return f"optimizer.name={optimizer}", *others

    @property
    def title(self) -> str:
        """The arm in words, such as "AdamW, weight_decay 0.1"."""
        optimizer, *others = NEXT_ASSIGNMENT.split(self.text)
        keys = (each.partition("=") for each in others)
        changes = (f"{key.rpartition('.')[2]} {value}" for key, _, value in keys)
        return ", ".join((OPTIMIZER_TITLES.get(optimizer, optimizer), *changes))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Point:
    """One run of a sweep. Its learning rate is `2^(notch/2)`, so that neighbours are √2 apart."""

    size: Size
    arm: Arm
    notch: int
    seed: int

    @property
    def lr(self) -> float:
        return 2.0 ** (self.notch / 2)

    def __str__(self) -> str:
        return f"{self.arm} | {self.size} | lr {power(self.notch)} | seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """The description of a sweep.

    Args:
        run: the common run of all points.
        sizes: the sizes in increasing order.
        ranges: the lowest and the highest notch of every arm.
        grid: the choice of notches in between.
        seeds: the number of runs at each rate; seeds count up from the run's seed.
        max_runs: the largest number of runs on the full grid.

    Raises:
        ArgumentError: there are more runs, or a size or an arm sets a key that the sweep or the other one sets.
    """

    run: RunSpec
    sizes: tuple[Size, ...]
    ranges: Mapping[Arm, tuple[int, int]]
    grid: Grid = "full"
    seeds: int = 1
    max_runs: int = MAX_RUNS

    def __post_init__(self) -> None:
        rates = sum(high - low + 1 for low, high in self.ranges.values())
        check_count(self.seeds, argument="--seeds", what="runs at each rate")
        _check_runs(len(self.sizes) * rates * self.seeds, self.max_runs)
        of_sizes = {key for size in self.sizes for key in _keys(size.assignments)}
        for key in of_sizes:
            _check_key(key, "--over")
        for arm in self.ranges:
            for key in _keys(arm.assignments[1:]):
                _check_key(key, "--arm")
                if key in of_sizes:
                    raise ArgumentError(
                        "--arm",
                        "must not set a key of --over",
                        repr(key),
                        "Leave it out of one of the two.",
                    )

    @property
    def curves(self) -> list[tuple[Arm, Size]]:
        """Every arm at every size."""
        return list(itertools.product(self.ranges, self.sizes))

    def points(self) -> list[Point]:
        """The points of the first round: all points, or those of the coarse grid."""
        spacing = 1 if self.grid == "full" else 2
        return [
            point
            for arm, size in self.curves
            for point in self.points_at(arm, size, range(*_range_ends(self.ranges[arm]), spacing))
        ]

    def points_at(self, arm: Arm, size: Size, notches: Iterable[int]) -> Iterator[Point]:
        """The points of one curve at these notches, with all seeds."""
        for notch in notches:
            for seed in range(self.seeds):
                yield Point(size, arm, notch, self.run.seed + seed)

    def neighbours(self, arm: Arm, size: Size, notch: int) -> Iterator[Point]:
        """The points next to a notch, within the arm's range."""
        inside = range(*_range_ends(self.ranges[arm]))
        return self.points_at(
            arm, size, [each for each in (notch - 1, notch + 1) if each in inside]
        )


def power(notch: int) -> str:
    """The rate of a notch as a text such as `2^-3.5`."""
    return f"2^{notch / 2:g}"


def parse_range(text: str, *, argument: str) -> tuple[int, int]:
    """Parse a range such as `2^-6..2^1` into its lowest and highest notch.

    Raises:
        ArgumentError: the text is not a range, or the higher end comes first.
    """
    found = RANGE.fullmatch(text.strip())
    ends = [float(each) for each in found.groups()] if found else [1.0, 0.0]
    if ends[0] > ends[1]:
        raise ArgumentError(
            argument,
            "must be a range of powers of two, the lower first",
            reprlib.repr(text),
            "Write it as 2^-6..2^1; an exponent is whole or ends in .5.",
        )
    if max(map(abs, ends)) > LARGEST_EXPONENT:
        raise ArgumentError(
            argument,
            f"must have exponents from -{LARGEST_EXPONENT} to {LARGEST_EXPONENT}",
            reprlib.repr(text),
            "Write it as 2^-6..2^1.",
        )
    low, high = (round(2 * each) for each in ends)
    return low, high


def parse_sizes(over: Sequence[str], *, most: int = MAX_RUNS) -> tuple[Size, ...]:
    """All combinations of choices such as `model.width=32,64` and `model.depth=2,8`; the last changes fastest.

    Args:
        most: the largest number of sizes.

    Raises:
        ArgumentError: there is no `=`, a value is missing, there are too many, or a key or a value comes twice.
    """
    choices: list[list[str]] = []
    keys: list[str] = []
    for text in over:
        key, _, values = text.partition("=")
        parts = [each.strip() for each in values.split(",")]
        if not key.strip() or not all(parts):
            raise ArgumentError(
                "--over", "must read KEY=VALUE,VALUE,…", repr(text), "Write model.width=32,64,128."
            )
        check_unlike([*keys, key.strip()], argument="--over", what="key")
        check_unlike(parts, argument=f"--over {key.strip()}", what="value")
        keys.append(key.strip())
        choices.append([f"{key.strip()}={each}" for each in parts])
    _check_runs(math.prod(map(len, choices)), most)
    return tuple(Size(each) for each in itertools.product(*choices))


def _keys(assignments: Iterable[str]) -> list[str]:
    return [each.partition("=")[0].strip() for each in assignments]


def _check_key(key: str, argument: str) -> None:
    for other, remedy in NO_SIZE.items():
        if f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}."):
            raise ArgumentError(
                argument, f"must not set {other}, which is the sweep's own", repr(key), remedy
            )


def _check_runs(count: int, most: int) -> None:
    if count > most:
        raise ArgumentError(
            "the sweep",
            f"must have at most {most:,} runs",
            f"{count:,}",
            "Try fewer sizes, rates or seeds, or raise --max-runs.",
        )


def _range_ends(ends: tuple[int, int]) -> tuple[int, int]:
    return ends[0], ends[1] + 1
