"""Images of one's own as a run names them: their place, and how they become inputs."""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal, Self

from pydantic import Field, Strict, ValidationInfo, field_validator

from modular_manifolds.specs.base import Spec, refused
from modular_manifolds.specs.data_sizes import Sizes, Usual, absolute

CONVOLVED_SIDE: Final = 16
"""Images with fewer pixels on a side go to the perceptron; a convolution has little to share there."""
LAST_SIDE: Final = 8
"""The default convolutional network halves an image until its side is about this long."""
EPOCH_STEPS: Final = 16
"""Steps that an epoch has at least by default, so that a few images are enough for a run."""

Channels = Annotated[tuple[float, ...], Strict(False), Field(min_length=1, max_length=3)]
"""A number for each channel."""


class OwnImagesSpec(Spec):
    """Images of one's own, with a class each: folders, Parquet files, or a data set of the Hugging Face hub."""

    name: Literal["images"]
    path: str | None = None
    """A folder with a folder a class, or with Parquet files, or `hf:NAME`. It must be given."""
    image_column: str | None = None
    """The column of a table that holds the images; null for `img` or `image`."""
    label_column: str | None = None
    """The column of a table that holds the labels; null for `label`."""
    test_part: str | None = None
    """The folder or part of a table that is measured; null for the first of test, validation, valid, val."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The share of each class that is measured and not trained on, if the data have no test part."""
    size: Annotated[int, Field(ge=1)] | None = None
    """The side that images are resized and cut to; null for images that all have one size."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colour; null for grey if every image is grey."""
    background: Literal["black", "white"] | None = None
    """The colour behind transparent pixels; null if there are none."""
    mean: Channels | None = None
    """The mean of each channel, of pixels in [0, 1]; null for that of the training images."""
    std: Channels | None = Field(default=None, validate_default=True)
    """The standard deviation of each channel; null for that of the training images."""
    flip: bool = False
    """Whether half of the training images, drawn anew in each epoch, are mirrored left to right."""
    crop: Annotated[int, Field(ge=0, le=64)] = 0
    """How many pixels a training image is moved by at most, either way; the mean colour fills what is left."""
    classes: Annotated[tuple[str, ...], Strict(False)] | None = None
    """The classes in the order of the outputs; null for those of the data. A resolved run has them."""
    shape: Annotated[tuple[int, int, int], Strict(False)] | None = None
    """Channels, height and width; null for those of the data. A resolved run has them."""

    @field_validator("std")
    @classmethod
    def _positive(cls, std: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if std is not None and not min(std) > 0:
            raise refused("must be positive numbers", "Leave it out for that of the images.")
        return std

    @field_validator("std")
    @classmethod
    def _beside_mean(
        cls, std: tuple[float, ...] | None, others: ValidationInfo
    ) -> tuple[float, ...] | None:
        mean = others.data.get("mean")
        if len(mean or ()) != len(std or ()):
            raise refused(
                "must have a number for each one of mean", "Give both, or neither of them."
            )
        return std

    @property
    def unread(self) -> str:
        """The field that is null until the data are read."""
        return "shape"

    @property
    def sizes(self) -> Sizes | None:
        """The sizes of the data, if they are written down."""
        if self.shape is None or self.classes is None:
            return None
        return Sizes(math.prod(self.shape), len(self.classes), self.shape)

    def usual(self, examples: int | None = None) -> Usual | None:
        """The default network and batch, which the size of the images and their number decide.

        None if the images have not been read.
        """
        if self.shape is None:
            return None
        side = min(self.shape[1:])
        batch = 128
        if examples is not None:
            batch = min(batch, max(8, examples // EPOCH_STEPS), examples)
        if side < CONVOLVED_SIDE:
            return Usual({"name": "mlp"}, batch)
        depth = max(1, round(math.log2(side / LAST_SIDE)))
        return Usual({"name": "convnet", "width": 16, "depth": depth}, batch)

    def with_absolute_path(self) -> Self:
        """The same from any folder."""
        return self.model_copy(update={"path": absolute(self.path)})
