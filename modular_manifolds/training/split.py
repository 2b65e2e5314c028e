"""One part of a data set of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modular_manifolds.training.augmentation import Augmentation


@dataclass(frozen=True, eq=False)
class Split:
    """`images` of shape (count, features), float32; `labels` of shape (count,), int64.

    With an augmentation, the number of an example that is drawn is `change · count + image`: it says which change too.
    """

    images: Tensor
    labels: Tensor
    augmentation: Augmentation | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def draw_order(self, generator: torch.Generator) -> Tensor:
        """Every example once, shuffled, and how each is changed."""
        shuffled = torch.randperm(len(self), generator=generator)
        if self.augmentation is None:
            return shuffled
        return self.augmentation.draw_changes(len(self), generator) * len(self) + shuffled

    def take(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels of the examples `chosen`, the images changed as their numbers say."""
        place = chosen % len(self)
        images, labels = self.images[place], self.labels[place]
        if self.augmentation is not None:
            images = self.augmentation.apply(images, chosen // len(self))
        return images, labels

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images and labels in order, at most `size` at a time, none of them changed."""
        return zip(self.images.split(size), self.labels.split(size), strict=True)

    def to(self, device: torch.device) -> Split:
        """The same on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))
