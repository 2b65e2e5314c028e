"""Images of one's own, from folders, Parquet files or the Hugging Face hub, ready to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.certificates import InputScale
from modular_manifolds.errors import DataError
from modular_manifolds.specs.data import OwnImagesSpec
from modular_manifolds.specs.data_sizes import HUB
from modular_manifolds.training.augmentation import Augmentation
from modular_manifolds.training.image_folders import read_folders
from modular_manifolds.training.image_set import DataSet
from modular_manifolds.training.image_tables import parquet_files, read_hub, read_parquet
from modular_manifolds.training.labelled import (
    Labelled,
    class_numbers,
    classes_of,
    numbering_remark,
)
from modular_manifolds.training.pixels import decode_pictures
from modular_manifolds.training.split import Split

Shape = tuple[int, int, int]
DIGITS: Final = 6
"""Digits behind the point of means and deviations: they are written into run.yaml."""


def read_own_images(spec: OwnImagesSpec) -> DataSet:
    """Read, check and normalise images; classes, shape, mean and deviation are written down in the spec.

    Every image is decode_pictures before any is trained on.

    Raises:
        DataError: there is no such folder, a file is damaged or of a kind that is not read, a class has
            no images, sizes differ, or the classes or the shape are not those that `spec` writes down.
    """
    train, test = _read_labelled(spec)
    classes = classes_of(train)
    _check_same("classes", spec.classes, classes, train.where)
    numbers = class_numbers(train, train, classes)
    if test is None:
        pictures = train.pictures
        labels = torch.tensor(numbers)
        held_out = _draw_test_images(labels, spec.validation, classes, train.where)
        remark = f"{spec.validation:.0%} of each class is held out to test"
    else:
        pictures = [*train.pictures, *test.pictures]
        labels = torch.tensor([*numbers, *class_numbers(test, train, classes)])
        held_out = torch.arange(len(labels)) >= len(train.pictures)
        remark = f"tested on {test.where}"
    images = decode_pictures(pictures, spec)
    channels, height, width = images.shape[1:]
    shape = (channels, height, width)
    _check_same("shape", spec.shape, shape, train.where)
    mean, std = _moments(spec, images[~held_out])
    rows = _normalise(images, mean, std).flatten(1)
    change = Augmentation(shape, spec.flip, spec.crop) if spec.flip or spec.crop else None
    return DataSet(
        spec.model_copy(update={"classes": classes, "shape": shape, "mean": mean, "std": std}),
        Split(rows[~held_out], labels[~held_out], change),
        Split(rows[held_out], labels[held_out]),
        classes,
        _scale(mean, std, height * width),
        tuple(each for each in (remark, numbering_remark(train, classes)) if each),
    )


def _read_labelled(spec: OwnImagesSpec) -> tuple[Labelled, Labelled | None]:
    if spec.path is None:
        raise DataError(
            "data path",
            "must be given for images",
            "nothing",
            "Pass --data-path DIR, a folder with a folder of images for each class.",
        )
    if spec.path.startswith(HUB):
        return read_hub(spec)
    place = Path(spec.path).expanduser()
    if place.suffix.lower() == ".parquet" and place.is_file():
        return read_parquet({"train": [place]}, spec)
    if not place.is_dir():
        raise DataError(
            "data path", "must be a folder that exists", str(place), "Check --data-path."
        )
    files = parquet_files(place)
    return read_parquet(files, spec) if files else read_folders(place, spec.test_part)


def _draw_test_images(labels: Tensor, share: float, classes: tuple[str, ...], where: str) -> Tensor:
    """Whether each image is for testing: of each class the share, drawn from one fixed seed and not the run's."""
    generator = torch.Generator().manual_seed(0)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for number, name in enumerate(classes):
        of_class = (labels == number).nonzero().flatten()
        if len(of_class) == 1:
            raise DataError(
                where,
                f"must hold at least two images of the class {name}, one of them to test on",
                1,
                "Add images, or put those to test on into a folder test beside a folder train.",
            )
        count = min(max(1, round(share * len(of_class))), len(of_class) - 1)
        shuffled = of_class[torch.randperm(len(of_class), generator=generator)]
        held_out[shuffled[:count]] = True
    return held_out


def _moments(spec: OwnImagesSpec, images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel: those of the spec, or of the training images."""
    if spec.mean is not None and spec.std is not None:
        if len(spec.mean) != images.shape[1]:
            raise DataError(
                "data.mean",
                f"must have a number for each of {images.shape[1]} channels",
                list(spec.mean),
                "Give as many, or leave mean and std out.",
            )
        return spec.mean, spec.std
    by_channel = images.transpose(0, 1).flatten(1)
    means = [round(float(each.double().mean()), DIGITS) for each in by_channel]
    deviations = [round(float(each.double().std(correction=0)), DIGITS) for each in by_channel]
    # A channel that never changes says nothing, however it is scaled.
    return tuple(means), tuple(each or 1.0 for each in deviations)


def _normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (images - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def _scale(mean: tuple[float, ...], std: tuple[float, ...], pixels: int) -> InputScale:
    each_mean, each_std = (
        torch.tensor(each, dtype=torch.float64).repeat_interleave(pixels) for each in (mean, std)
    )
    return InputScale(each_mean, each_std, "pixels in [0, 1]")


def _check_same(what: str, expected: object, seen: object, where: str) -> None:
    if expected not in (None, seen):
        raise DataError(
            where,
            f"must have the {what} that the run was started with, {expected}",
            seen,
            f"Put back the images, or start a new run without data.{what}.",
        )
