"""One part of a data set of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """`images` of shape (count, features), float32; `labels` of shape (count,), int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def drawn(self, generator: torch.Generator) -> Tensor:
        """Every example once, shuffled."""
        return torch.randperm(len(self), generator=generator)

    def take(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels of the examples `chosen`."""
        return self.images[chosen], self.labels[chosen]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images and labels in order, at most `size` at a time."""
        return zip(self.images.split(size), self.labels.split(size), strict=True)

    def to(self, device: torch.device) -> Split:
        """The same on `device`."""
        return Split(self.images.to(device), self.labels.to(device))
