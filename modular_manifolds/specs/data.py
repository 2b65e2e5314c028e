"""The data sets that a run can name, and the size of their inputs and outputs."""

from __future__ import annotations

from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field

from modular_manifolds.specs.base import Spec

ImagesName = Literal["digits", "cifar10"]
DataName = Literal["digits", "cifar10", "text"]


class Sizes(NamedTuple):
    """How many numbers an example has, how many classes there are, and the shape of an image."""

    in_features: int
    classes: int
    image: tuple[int, int, int] | None = None
    """Channels, height, width; None if an example is no image."""


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
    def sizes(self) -> Sizes | None:
        """The sizes of the data set."""
        return SIZES[self.name]


class TextSpec(Spec):
    """A text whose next character a run learns to predict."""

    name: Literal["text"]
    path: str | None = None
    """The text: a file in UTF-8, or a folder with one file `.txt` in it. It must be given."""
    context: Annotated[int, Field(ge=1)] = 128
    """How many characters the network sees at once."""
    characters: str | None = None
    """The vocabulary, a token each; null for the characters of the text, in order of their code points."""

    @property
    def sizes(self) -> Sizes | None:
        """Vocabulary and vocabulary, if the characters are written down."""
        if self.characters is None:
            return None
        return Sizes(in_features=len(self.characters), classes=len(self.characters))


DataSpec = Annotated[ImagesSpec | TextSpec, Field(discriminator="name")]
