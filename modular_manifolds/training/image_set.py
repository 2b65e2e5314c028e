"""A data set of images with its fixed split."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import torch

from modular_manifolds.certificates import InputScale
from modular_manifolds.certificates.input_scale import unscaled
from modular_manifolds.specs.data import ImagesSpec, OwnImagesSpec
from modular_manifolds.training.split import Split

NAMED: Final = 10
"""Classes that are listed in a line; of more only the first are."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images with their fixed split: `classes` name the labels, `scale` says what a pixel became."""

    spec: ImagesSpec | OwnImagesSpec
    train: Split
    test: Split
    classes: tuple[str, ...]
    scale: InputScale = field(default_factory=unscaled)
    remarks: tuple[str, ...] = ()
    """Choices that were made while the images were read, each in a few words."""

    @property
    def in_features(self) -> int:
        return self.train.images.shape[1]

    @property
    def train_sample(self) -> Split:
        """All training images, none of them changed at random."""
        return self.train

    @property
    def summary(self) -> str:
        """A line for the user: classes, the number of images and their shape."""
        sizes = self.spec.sizes
        shape = ""
        if sizes is not None and sizes.image is not None:
            channels, height, width = sizes.image
            shape = f" of {height}×{width} pixels, {'grey' if channels == 1 else 'colour'}"
        more = ", …" if len(self.classes) > NAMED else ""
        named = f"{len(self.classes)} classes ({', '.join(self.classes[:NAMED])}{more})"
        counts = f"{len(self.train):,} images to train and {len(self.test):,} to test"
        return "; ".join((f"{named}; {counts}{shape}", *self.remarks))

    def to(self, device: torch.device) -> DataSet:
        """The same images on `device`."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))
