"""Images in tables: Parquet files, and data sets of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modular_manifolds.errors import DataError
from modular_manifolds.specs.data import OwnImagesSpec
from modular_manifolds.training.hub import column, from_hub, quiet_datasets
from modular_manifolds.training.labelled import TEST_PARTS, TRAIN, Labelled, test_part
from modular_manifolds.training.pictures import Picture


def parquet_files(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files of a folder by part: the first word of a file's name, `train` for any other word."""
    found: dict[str, list[Path]] = {}
    for place in (folder, folder / "data", folder / "plain_text"):
        for file in sorted(place.glob("*.parquet")):
            word = file.stem.split("-")[0].lower()
            found.setdefault(word if word in TEST_PARTS else TRAIN, []).append(file)
        if found:
            break
    return found


def read_parquet(
    parts: dict[str, list[Path]], spec: OwnImagesSpec
) -> tuple[Labelled, Labelled | None]:
    """The rows of Parquet files, for training and for testing.

    Raises:
        DataError: a file cannot be read, a column is missing, or there is no part to train on.
    """
    folder = next(iter(parts.values()))[0].parent
    if TRAIN not in parts:
        raise DataError(
            str(folder), "must hold train-*.parquet", ", ".join(parts), "Add the training part."
        )
    with quiet_datasets("data images") as datasets:
        tables = {name: _table(datasets, files) for name, files in parts.items()}
    return _parts(tables, spec, str(folder))


def read_hub(spec: OwnImagesSpec) -> tuple[Labelled, Labelled | None]:
    """The rows of a data set of the hub, for training and for testing.

    Raises:
        DataError: it cannot be loaded, or a column is missing.
    """
    assert spec.path is not None
    return _parts(from_hub(spec.path), spec, spec.path)


def _table(datasets: Any, files: list[Path]) -> Any:
    try:
        return datasets.Dataset.from_parquet([str(file) for file in files], keep_in_memory=True)
    # Arrow and the library have errors of their own for damaged files, beside those of Python.
    except Exception as error:
        raise DataError(
            ", ".join(file.name for file in files),
            "must be Parquet files with the same columns and at least one row",
            f"{type(error).__name__}: {' '.join(str(error).split())[:120]}",
            "Write the files again.",
        ) from None


def _parts(
    tables: dict[str, Any], spec: OwnImagesSpec, where: str
) -> tuple[Labelled, Labelled | None]:
    test = test_part([each for each in tables if each != TRAIN], spec.test_part, where=where)
    train = _read_labelled(tables[TRAIN], spec, f"{where} ({TRAIN})")
    if test is None:
        return train, None
    return train, _read_labelled(tables[test], spec, f"{where} ({test})")


def _read_labelled(table: Any, spec: OwnImagesSpec, where: str) -> Labelled:
    with quiet_datasets("data images") as datasets:
        label_names = (spec.label_column,) if spec.label_column else ("label",)
        labels = column(table, *label_names, setting="data.label_column", where=where)
        image_names = (spec.image_column,) if spec.image_column else ("img", "image")
        column(table, *image_names, setting="data.image_column", where=where)
        name = next(each for each in image_names if each in table.column_names)
        kind = table.features[next(each for each in label_names if each in table.column_names)]
        images = table
        if isinstance(table.features[name], datasets.Image):
            # As bytes: decoding here gives errors that name the row.
            images = table.cast_column(name, datasets.Image(decode=False))
        pictures = [
            Picture(f"{where}, row {row}", _bytes(value, f"{where}, row {row}", name))
            for row, value in enumerate(images[name])
        ]
    return Labelled(where, pictures, list(labels), tuple(getattr(kind, "names", ())) or None)


def _bytes(value: Any, where: str, name: str) -> bytes | Path:
    found = value
    if isinstance(value, dict):
        found = value.get("bytes")
        if found is None and value.get("path"):
            found = Path(value["path"])
    if isinstance(found, bytes) or (isinstance(found, Path) and found.is_file()):
        return found
    raise DataError(
        where,
        f"must hold the bytes of an image in the column {name}",
        "nothing" if found is None else type(found).__name__,
        "Write the images into the table, or name another column with data.image_column.",
    )
