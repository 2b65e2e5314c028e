"""Which data sets a run can name, and the size of their inputs and outputs."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from modular_manifolds.specs.base import Spec

DataName = Literal["digits", "cifar10"]


class Sizes(NamedTuple):
    """How many numbers an example has, and how many classes there are."""

    in_features: int
    classes: int


SIZES: Final[dict[DataName, Sizes]] = {
    "digits": Sizes(in_features=64, classes=10),
    "cifar10": Sizes(in_features=3072, classes=10),
}


class DataSpec(Spec):
    """What a run learns from."""

    name: DataName = "digits"
    """The data set."""
    path: str | None = None
    """The folder that holds it; null for the bundled or downloaded one."""
