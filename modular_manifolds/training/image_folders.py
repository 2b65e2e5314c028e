"""Images in folders, a folder a class."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from modular_manifolds.errors import DataError
from modular_manifolds.training.labelled import TEST_PARTS, TRAIN, Labelled, test_part
from modular_manifolds.training.pictures import Picture

SUFFIXES: Final = (
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
    ".pgm",
    ".ppm",
)
"""The names of images end so, in capitals or not."""
IGNORED: Final = frozenset({"thumbs.db", "desktop.ini"})
"""Files that systems put beside images, in small letters; those whose name starts with a point are ignored too."""


def read_folders(folder: Path, wanted: str | None) -> tuple[Labelled, Labelled | None]:
    """The images below `folder`, for training and for testing; None if there is no part for testing.

    Args:
        folder: holds a folder a class, or a folder `train` of such folders and one to test on beside it.
        wanted: the name of the folder to test on; None for the first of the usual names.

    Raises:
        DataError: a class has no image, a file is no image, or images lie beside the classes.
    """
    inside = {each.name.lower(): each for each in _visible_entries(folder) if each.is_dir()}
    if TRAIN not in inside:
        found = next(
            (name for name in (wanted, *TEST_PARTS) if name and name.lower() in inside), None
        )
        if found is not None:
            raise DataError(
                str(folder),
                f"must hold a folder train beside the folder {found}",
                ", ".join(sorted(inside)),
                "Add it, or pass a folder whose folders are the classes.",
            )
        return _classes(folder), None
    for each in _visible_entries(folder):
        if each.suffix.lower() in SUFFIXES:
            raise _misplaced_error(each)
    name = test_part(inside, wanted, where=str(folder))
    test = None if name is None else _classes(inside[name.lower()])
    return _classes(inside[TRAIN]), test


def _classes(folder: Path) -> Labelled:
    pictures: list[Picture] = []
    labels: list[str] = []
    for each in _visible_entries(folder):
        if not each.is_dir():
            raise _misplaced_error(each)
        files = [*_images(each)]
        if not files:
            raise DataError(
                str(each),
                "must hold at least one image",
                "an empty folder",
                "Fill it or remove it.",
            )
        pictures += [Picture(str(file), file) for file in files]
        labels += [each.name] * len(files)
    if not labels:
        raise DataError(
            str(folder),
            "must hold a folder of images for each class",
            "an empty folder",
            "Put the images of a class into a folder with its name.",
        )
    return Labelled(str(folder), pictures, labels)


def _images(folder: Path) -> list[Path]:
    found: list[Path] = []
    for each in _visible_entries(folder):
        if each.is_dir():
            found += _images(each)
        elif each.suffix.lower() in SUFFIXES:
            found.append(each)
        else:
            raise DataError(
                str(each),
                f"must be an image ({' '.join(SUFFIXES)})",
                "a file of another name",
                "Take it out of the folder of its class.",
            )
    return found


def _visible_entries(folder: Path) -> list[Path]:
    """The files and folders in a folder, by name, without those that systems put there."""
    return sorted(
        each
        for each in folder.iterdir()
        if not each.name.startswith(".") and each.name.lower() not in IGNORED
    )


def _misplaced_error(file: Path) -> DataError:
    return DataError(
        str(file),
        "must lie in the folder of its class",
        "a file beside the folders",
        "Move it there, or out of the data.",
    )
