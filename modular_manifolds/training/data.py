"""The data sets a run can name: features and labels as tensors, ready to train on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.certificates import InputScale
from modular_manifolds.certificates.input_scale import unscaled
from modular_manifolds.errors import DataError
from modular_manifolds.training.cifar10 import cifar10_scale, load_cifar10
from modular_manifolds.training.digits import digits_scale, load_digits
from modular_manifolds.training.split import Split


@dataclass(frozen=True)
class DataSet:
    """A data set with its fixed split: `classes` name the labels, `scale` says what a pixel became."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    scale: InputScale = field(default_factory=unscaled)

    @property
    def in_features(self) -> int:
        return self.train.images.shape[1]


Loader = Callable[[Path | None], tuple[Split, Split, tuple[str, ...]]]

LOADERS: Final[dict[str, Loader]] = {"digits": load_digits, "cifar10": load_cifar10}
"""The loader of each data set. A new one is one file and one row here (and its sizes in the specs)."""

SCALES: Final[dict[str, Callable[[], InputScale]]] = {
    "digits": digits_scale,
    "cifar10": cifar10_scale,
}
"""How the loader of each data set scales pixels."""


def load_data(name: str, path: str | Path | None = None) -> DataSet:
    """Read a data set: the bundled digits, or CIFAR-10 from Parquet files.

    Args:
        name: `digits` or `cifar10`.
        path: the folder that holds the files; the bundled or downloaded ones without it.

    Raises:
        DataError: the name is unknown, the files are missing or of another layout, there is nothing in
        them, or they hold NaN.
    """
    if name not in LOADERS:
        raise DataError("data", f"must be one of {', '.join(LOADERS)}", repr(name), "Name one.")
    folder = None if path is None else Path(path).expanduser()
    if folder is not None and not folder.is_dir():
        raise DataError(
            "data path", "must be a folder that exists", str(folder), "Check --data-path."
        )
    train, test, classes = LOADERS[name](folder)
    for part, split in (("training", train), ("test", test)):
        _check(f"{name}'s {part} part", split, len(classes))
    return DataSet(name, train, test, classes, SCALES[name]())


def _check(what: str, split: Split, classes: int) -> None:
    if len(split.labels) == 0:
        raise DataError(what, "must hold at least one example", "none", "Check the files.")
    if not bool(torch.isfinite(split.images).all()):
        raise DataError(what, "must be finite", "NaN or infinity", "Check the files.")
    lowest, highest = int(split.labels.min()), int(split.labels.max())
    if lowest < 0 or highest >= classes:
        raise DataError(
            what,
            f"must have labels from 0 to {classes - 1}",
            f"{lowest} to {highest}",
            "Check them.",
        )


def batches(split: Split, size: int, *, seed: int, epoch: int) -> list[Tensor]:
    """The indices of each batch of an epoch: a shuffle that depends on seed and epoch only."""
    generator = torch.Generator().manual_seed(_mixed(seed, epoch))
    return list(torch.randperm(len(split.labels), generator=generator).split(size))


def _mixed(seed: int, epoch: int) -> int:
    """A number of its own for each pair: nearby seeds must not share epochs."""
    return (seed * 1_000_003 + epoch * 7_919 + 1) % 2**63
