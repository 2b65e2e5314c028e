"""The size of a data set's inputs and outputs, and the path that leads to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

HUB: Final = "hf:"
"""A path that begins so names a data set of the Hugging Face hub, and no file."""


class Sizes(NamedTuple):
    """How many numbers an example has, how many classes there are, and the shape of an image."""

    in_features: int
    classes: int
    image: tuple[int, int, int] | None = None
    """Channels, height, width; None if an example is no image."""


class Usual(NamedTuple):
    """The settings that a data set brings to a run that names none of its own."""

    model: dict[str, Any]
    """The name of a model, and arguments that are not the model's own defaults."""
    batch_size: int


def absolute(path: str | None) -> str | None:
    """The path written from the root, so that it is found from any folder; a name on the hub as it is."""
    if path is None or path.startswith(HUB):
        return path
    return str(Path(path).expanduser().absolute())
