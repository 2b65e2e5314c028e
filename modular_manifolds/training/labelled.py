"""Pictures with a label each, as they are found, and the classes that the labels mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from modular_manifolds.errors import DataError
from modular_manifolds.training.pictures import Picture

TRAIN: Final = "train"
TEST_PARTS: Final = ("test", "validation", "valid", "val")
"""The names of the part that is measured, the first that is found; in capitals or not."""


@dataclass(frozen=True)
class Labelled:
    """The pictures of one part. A label is the name of its class, or a whole number; `names` are those of the numbers."""

    where: str
    pictures: list[Picture]
    labels: Sequence[str | int]
    names: tuple[str, ...] | None = None


def test_part(parts: Iterable[str], wanted: str | None, *, where: str) -> str | None:
    """The part that is measured: the one that is wanted, or the first of the usual names; None without any.

    Raises:
        DataError: the wanted part is not there.
    """
    known = {each.lower(): each for each in parts}
    if wanted is None:
        return next((known[each] for each in TEST_PARTS if each in known), None)
    if wanted.lower() not in known:
        raise DataError(
            "data.test_part",
            f"must be a part of {where}",
            repr(wanted),
            f"Known here: {', '.join(known.values())}.",
        )
    return known[wanted.lower()]


def classes_of(train: Labelled) -> tuple[str, ...]:
    """The names of the classes: those that the data give, or the different labels in order.

    Raises:
        DataError: labels are neither all names nor all whole numbers of at least 0, or there is only one class.
    """
    kinds = {type(each) for each in train.labels}
    if kinds == {int} and train.names is not None:
        _check_numbers(train, len(train.names))
        names = train.names
    elif kinds == {int}:
        _check_numbers(train, None)
        names = tuple(str(each) for each in sorted({int(each) for each in train.labels}))
    elif kinds == {str}:
        names = tuple(sorted({str(each) for each in train.labels}))
    else:
        raise DataError(
            train.where,
            "must have a label for each image, all names or all whole numbers",
            ", ".join(sorted("none" if each is type(None) else each.__name__ for each in kinds)),
            "Name another column with data.label_column, or write the labels as text.",
        )
    if len(names) < 2:
        raise DataError(
            train.where, "must have at least two classes", ", ".join(names), "Add another class."
        )
    return names


def class_numbers(part: Labelled, train: Labelled, classes: Sequence[str]) -> list[int]:
    """The number of the class of each picture of a part.

    Raises:
        DataError: a label of the part stands for no class that the training images have.
    """
    number = {name: place for place, name in enumerate(classes)}
    trained = {_class_name(each, train) for each in train.labels}
    for picture, label in zip(part.pictures, part.labels, strict=True):
        name = _class_name(label, part)
        if name not in number or name not in trained:
            raise DataError(
                picture.name,
                "must be of a class that has training images",
                repr(name),
                f"Add such images to {train.where}, or take this class away. Known here: {', '.join(sorted(trained))}.",
            )
    return [number[_class_name(each, part)] for each in part.labels]


def numbering_remark(train: Labelled, classes: Sequence[str]) -> str | None:
    """A remark if the classes have other numbers than the labels; None for names, and for numbers from 0 up."""
    if train.names is not None or not all(isinstance(each, int) for each in train.labels):
        return None
    counted = tuple(str(each) for each in range(len(classes)))
    if tuple(classes) == counted:
        return None
    return f"the labels {', '.join(classes)} are the outputs 0 to {len(classes) - 1}"


def _class_name(label: str | int, part: Labelled) -> str:
    if isinstance(label, int) and part.names is not None and 0 <= label < len(part.names):
        return part.names[label]
    return str(label)


def _check_numbers(part: Labelled, count: int | None) -> None:
    for picture, label in zip(part.pictures, part.labels, strict=True):
        if not isinstance(label, int) or label < 0 or (count is not None and label >= count):
            below = "" if count is None else f" and less than {count}"
            raise DataError(
                picture.name,
                f"must have a label of at least 0{below}",
                label,
                "Give it a label; -1 often means that there is none.",
            )
