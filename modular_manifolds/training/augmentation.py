"""Random changes of training images that leave their class as it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """Mirrors an image left to right, and moves it by up to `crop` pixels either way; zeros fill what is left.

    A change is a number below `variants`, so that it can be drawn, and written down, beside its image. With m = 2 crop + 1
    it is `(mirrored · m + row) · m + column`.

    Args:
        shape: channels, height and width of an image.
        flip: whether half of the images are mirrored.
        crop: the most that an image is moved by, in pixels.
    """

    shape: tuple[int, int, int]
    flip: bool
    crop: int

    @property
    def variants(self) -> int:
        """How many changes there are."""
        return (2 if self.flip else 1) * self._places**2

    @property
    def _places(self) -> int:
        return 2 * self.crop + 1

    def draw_changes(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` changes, each as likely as any other."""
        return torch.randint(self.variants, (count,), generator=generator)

    def apply(self, images: Tensor, changes: Tensor) -> Tensor:
        """The images, of shape (count, features), each changed by its own change."""
        _, height, width = self.shape
        places = changes % self._places**2
        rows, columns = places // self._places, places % self._places
        mirrored = changes >= self._places**2
        padded = functional.pad(images.unflatten(1, self.shape), 4 * [self.crop])
        down = rows[:, None] + torch.arange(height, device=images.device)
        along = torch.arange(width, device=images.device).expand(len(images), -1)
        along = torch.where(mirrored[:, None], along.flip(1), along) + columns[:, None]
        each = torch.arange(len(images), device=images.device)[:, None, None]
        # The channels are sliced, so the indices come first.
        moved = padded[each, :, down[:, :, None], along[:, None, :]]
        return moved.permute(0, 3, 1, 2).flatten(1)
