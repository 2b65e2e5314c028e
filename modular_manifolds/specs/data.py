"""The data sets that a run can name, and the size of their inputs and outputs.

A new kind of data is a file with its spec and a row in `DataSpec` and `DataName`, and a file with its reader and a row in
`modular_manifolds.training.data`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field

from modular_manifolds.specs.base import Spec
from modular_manifolds.specs.data_sizes import Sizes as Sizes
from modular_manifolds.specs.data_sizes import Usual, absolute
from modular_manifolds.specs.own_images import OwnImagesSpec as OwnImagesSpec
from modular_manifolds.specs.own_text import TextSpec as TextSpec

ImagesName = Literal["digits", "cifar10"]
DataName = Literal["digits", "cifar10", "images", "text"]

SIZES: Final[dict[ImagesName, Sizes]] = {
    "digits": Sizes(in_features=64, classes=10, image=(1, 8, 8)),
    "cifar10": Sizes(in_features=3072, classes=10, image=(3, 32, 32)),
}


class ImagesSpec(Spec):
    """Images that a run learns to classify."""

    name: ImagesName
    """The data set."""
    path: str | None = None
    """The folder that holds it; null for the bundled or downloaded one."""

    @property
    def unread(self) -> str:
        """The field that is null until the data are read: none, the sizes are always known."""
        return "name"

    @property
    def sizes(self) -> Sizes | None:
        """The sizes of the data set."""
        return SIZES[self.name]

    def usual(self, examples: int | None = None) -> Usual:
        """The perceptron of the post, and batches of 128."""
        del examples
        return Usual({"name": "mlp"}, 128)

    def with_absolute_path(self) -> Self:
        """The same from any folder."""
        return self.model_copy(update={"path": absolute(self.path)})


DataSpec = Annotated[ImagesSpec | OwnImagesSpec | TextSpec, Field(discriminator="name")]
