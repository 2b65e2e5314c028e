"""The settings of a run, and the problems that its benchmarks share, each recorded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from modular_manifolds.training.split import Split
from modular_manifolds_bench import quality
from modular_manifolds_bench.gradients import (
    CIFAR10,
    ENLARGED,
    Problem,
    deep_net,
    enlarged_digits,
    images_of_cifar10,
    large_net,
    small_net,
)


@dataclass(frozen=True)
class Settings:
    """The settings of a run.

    Args:
        data_path: the folder with CIFAR-10's Parquet files; None for the bundled digits.
        rounds: the largest number of rounds of a comparison.
        seconds: a comparison ends after three rounds if its timed steps took this long.
        drift_steps: the number of steps in the drift benchmark.
        watch: called with a description of the current work.
    """

    data_path: Path | None = None
    rounds: int = 30
    seconds: float = 8.0
    drift_steps: int = 10_000
    watch: Callable[[str], None] = field(default=lambda _: None)


@dataclass(frozen=True)
class Recordings:
    """The recorded problems, each made at its first use."""

    settings: Settings

    @property
    def source(self) -> str:
        """The name of the images of 3072 numbers, in words."""
        return ENLARGED if self.settings.data_path is None else CIFAR10

    @cached_property
    def images(self) -> Split:
        self.settings.watch("images: reading")
        folder = self.settings.data_path
        return enlarged_digits() if folder is None else images_of_cifar10(folder)

    @cached_property
    def single(self) -> tuple[Problem, ...]:
        """One weight each, of the two MLPs."""
        return (
            *small_net(self.images, self._watch("3072-128-64-10")),
            *self.large,
        )

    @cached_property
    def large(self) -> tuple[Problem, ...]:
        return tuple(large_net(self.images, self._watch("3072-768-768-10")))

    @cached_property
    def deep(self) -> Problem:
        return deep_net(self._watch("64 layers of 64×64"))

    @cached_property
    def best(self) -> dict[str, float]:
        """The best dual objective at the first moment of each single weight."""
        found: dict[str, float] = {}
        for problem in self.single:
            self.settings.watch(f"steepest direction in float64: {problem.name}")
            found[problem.name] = quality.best_dual(problem.moments[0])
        return found

    def _watch(self, name: str) -> Callable[[str], None]:
        return lambda what: self.settings.watch(f"training {name}: {what}")
