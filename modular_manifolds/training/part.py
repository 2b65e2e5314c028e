"""The interface between a run and a data set: its two parts, and how examples are taken from one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, Self

import torch
from torch import Tensor

from modular_manifolds.certificates import InputScale
from modular_manifolds.specs.data import DataSpec


class Part(Protocol):
    """One part of a data set. Inputs and labels are those that a network and its loss take."""

    def __len__(self) -> int:
        """How many examples one pass over it has."""
        ...

    def draw_order(self, generator: torch.Generator) -> Tensor:
        """The examples of one pass in random order, by number, of shape (len,), on the CPU."""
        ...

    def take(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the examples `chosen`, as numbers on the part's device."""
        ...

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All of it once, in order: inputs and labels of at most `size` examples at a time."""
        ...


class Data(Protocol):
    """A data set as a run sees it."""

    @property
    def spec(self) -> DataSpec:
        """The entry that a run writes down to read the data again."""
        ...

    @property
    def in_features(self) -> int: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def train(self) -> Part: ...

    @property
    def test(self) -> Part: ...

    @property
    def train_sample(self) -> Part:
        """The training examples that a run is measured on."""
        ...

    @property
    def scale(self) -> InputScale | None:
        """The unit that distances of inputs are measured in; None if inputs have no distance."""
        ...

    @property
    def summary(self) -> str:
        """A line for the user that says what was read."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same data on `device`; nothing is copied that is there."""
        ...


def order(part: Part, size: int, *, seed: int, epoch: int) -> list[Tensor]:
    """The examples of each batch of an epoch: a function of the part, seed and epoch only."""
    generator = torch.Generator().manual_seed(_epoch_seed(seed, epoch))
    return list(part.draw_order(generator).split(size))


def _epoch_seed(seed: int, epoch: int) -> int:
    """A number of its own for each pair: nearby seeds must not share epochs."""
    return (seed * 1_000_003 + epoch * 7_919 + 1) % 2**63
