"""The data sets a run can name, ready to train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, get_args

import torch

from modular_manifolds.certificates import InputScale
from modular_manifolds.errors import DataError, SpecError
from modular_manifolds.specs import RunSpec
from modular_manifolds.specs.data import DataName, DataSpec, ImagesName, ImagesSpec
from modular_manifolds.specs.size import TO_TRAIN
from modular_manifolds.training.cifar10 import cifar10_scale, load_cifar10
from modular_manifolds.training.digits import digits_scale, load_digits
from modular_manifolds.training.image_set import DataSet as DataSet
from modular_manifolds.training.own_images import read_own_images
from modular_manifolds.training.part import Data
from modular_manifolds.training.split import Split
from modular_manifolds.training.text import read_text

Loader = Callable[[Path | None], tuple[Split, Split, tuple[str, ...]]]

LOADERS: Final[dict[ImagesName, Loader]] = {"digits": load_digits, "cifar10": load_cifar10}
"""The loader of each set of images. A new one is one file and one row here (and its sizes in the specs)."""

SCALES: Final[dict[ImagesName, Callable[[], InputScale]]] = {
    "digits": digits_scale,
    "cifar10": cifar10_scale,
}
"""How the loader of each data set scales pixels."""


def _read_named(spec: ImagesSpec) -> DataSet:
    return load_data(spec.name, spec.path)


READERS: Final[dict[DataName, Callable[[Any], Data]]] = {
    "digits": _read_named,
    "cifar10": _read_named,
    "images": read_own_images,
    "text": read_text,
}
"""The reader of each kind of data, which takes its spec. A new kind is one file and one row here (and its spec)."""


def read_data(spec: DataSpec) -> Data:
    """Read what a run learns from.

    Raises:
        DataError: files are missing, damaged, of another layout, or too few.
        SpecError: a text is not UTF-8.
    """
    return READERS[spec.name](spec)


def resolve_with_data(spec: RunSpec, data: Data) -> RunSpec:
    """The run as its directory writes it down: data and network in full.

    Raises:
        ArgumentError: the network cannot be built, or does not fit the data.
        SpecError: it is too large to be trained in the memory of this machine, or the batch is larger than the data set.
    """
    examples = len(data.train)
    known = spec.with_data(data.spec, examples=examples)
    if known.batch_size > examples:
        raise SpecError(
            "batch_size",
            f"must be at most {examples:,}, the number of training examples",
            f"{known.batch_size:,}",
            f"Write --set batch_size={examples}, or a smaller one.",
        )
    resolved = known.resolved(data.in_features, len(data.classes))
    assert resolved.network is not None
    resolved.network.check_size(resolved.limits, "network", bytes_each=TO_TRAIN)
    return resolved


def load_data(name: str, path: str | Path | None = None) -> DataSet:
    """Read a set of images: the bundled digits, or CIFAR-10 from Parquet files.

    Args:
        name: `digits` or `cifar10`.
        path: the folder that holds the files; the bundled or downloaded ones without it.

    Raises:
        DataError: the name is unknown, the files are missing or of another layout, there is nothing
            in them, or they hold NaN.
    """
    known = next((each for each in get_args(ImagesName) if each == name), None)
    if name == "text":
        raise DataError(
            "data",
            f"must be images ({', '.join(LOADERS)}) for classification",
            "'text'",
            "Robustness on text is not defined: characters have no distance.",
        )
    if known is None:
        raise DataError("data", f"must be one of {', '.join(LOADERS)}", repr(name), "Name one.")
    folder = None if path is None else Path(path).expanduser()
    if folder is not None and not folder.is_dir():
        raise DataError(
            "data path", "must be a folder that exists", str(folder), "Check --data-path."
        )
    train, test, classes = LOADERS[known](folder)
    for part, split in (("training", train), ("test", test)):
        _check(f"{name}'s {part} part", split, len(classes))
    spec = ImagesSpec(name=known, path=None if path is None else str(path))
    return DataSet(spec, train, test, classes, SCALES[known]())


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
