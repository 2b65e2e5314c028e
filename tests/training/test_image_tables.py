"""Images of one's own in Parquet files and in data sets of the Hugging Face hub, which no test asks."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modular_manifolds.errors import DataError
from modular_manifolds.specs.data import OwnImagesSpec
from modular_manifolds.training.data import DataSet
from modular_manifolds.training.own_images import read_own_images

pytestmark = pytest.mark.skipif(
    find_spec("datasets") is None, reason="the extra 'datasets' is not installed"
)

Write = Callable[..., Path]


def library() -> Any:
    """The library `datasets`. Its import takes a second: only the worker that runs these tests pays it."""
    return import_module("datasets")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a Parquet file of random grey images with these labels; the library's cache is beside it."""
    monkeypatch.setattr(library().config, "HF_DATASETS_CACHE", tmp_path / "cache")
    generator = np.random.default_rng(0)
    datasets, pillow = library(), import_module("PIL.Image")

    def make(
        labels: list[Any],
        name: str = "train-0.parquet",
        *,
        image: str = "image",
        label: str = "label",
        names: list[str] | None = None,
    ) -> Path:
        encoded = []
        for _ in labels:
            buffer = io.BytesIO()
            pixels = generator.integers(0, 256, (4, 4), dtype=np.uint8)
            pillow.fromarray(pixels).save(buffer, format="PNG")
            encoded.append({"bytes": buffer.getvalue(), "path": None})
        table = datasets.Dataset.from_dict({image: encoded, label: labels})
        table = table.cast_column(image, datasets.Image())
        if names is not None:
            table = table.cast_column(label, datasets.ClassLabel(names=names))
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(str(file))
        return tmp_path / "data"

    return make


def read(path: Path | str, **settings: Any) -> DataSet:
    return read_own_images(OwnImagesSpec(name="images", path=str(path), **settings))


def test_parts_are_found_by_the_names_of_the_files(write: Write) -> None:
    write([0, 1, 1], image="img")
    folder = write([1], "test-0.parquet", image="img")
    data = read(folder)
    assert data.train.labels.tolist() == [0, 1, 1]
    assert data.test.labels.tolist() == [1]
    assert data.classes == ("0", "1")
    assert data.spec.sizes == (16, 2, (1, 4, 4))


def test_one_file_is_held_out_from_and_columns_can_be_named(write: Write) -> None:
    folder = write(["b", "a", "b", "a"], "mine.parquet", image="scan", label="kind")
    data = read(folder / "mine.parquet", image_column="scan", label_column="kind")
    assert data.classes == ("a", "b")
    assert (len(data.train), len(data.test)) == (2, 2)
    with pytest.raises(DataError, match=r"must have the column img or image, got scan, kind\."):
        read(folder, label_column="kind")
    with pytest.raises(DataError, match=r"must have the column label, got scan, kind\. Name the"):
        read(folder)
    with pytest.raises(DataError, match="must have the column picture, got scan, kind"):
        read(folder, image_column="picture", label_column="kind")
    with pytest.raises(DataError, match="row 0 must hold the bytes of an image in the column kind"):
        read(folder, image_column="kind", label_column="kind")


def test_numbers_with_gaps_are_mapped_and_said(write: Write) -> None:
    data = read(write([10, 3, 3, 10]))
    assert data.classes == ("3", "10")
    assert sorted(data.train.labels.tolist()) == [0, 1]
    assert "the labels 3, 10 are the outputs 0 to 1" in data.summary
    assert "outputs" not in read(write([0, 1, 1, 0])).summary


def test_the_names_of_a_table_are_the_classes(write: Write) -> None:
    assert read(write([0, 1, 1, 0], names=["tea", "oil"])).classes == ("tea", "oil")
    names = ["tea", "oil", "rye"]
    write([0, 1], names=names)
    with pytest.raises(DataError, match=r"test\), row 0 must be of a class .*, got 'rye'"):
        read(write([2], "test-0.parquet", names=names))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, -1, 1], r"row 1 must have a label of at least 0, got -1"),
        (
            [0, None, 1],
            r"must have a label for each image, all names or all whole numbers, got int",
        ),
        ([0.5, 1.0, 1.0], r"all whole numbers, got float"),
        ([True, False, True], r"all whole numbers, got bool"),
    ],
)
def test_other_labels_are_refused(write: Write, labels: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(labels))


def test_a_damaged_file_and_a_damaged_row_are_refused(write: Write, tmp_path: Path) -> None:
    folder = write([0, 1])
    (folder / "train-1.parquet").write_bytes(b"not a table")
    with pytest.raises(DataError, match=r"train-0.parquet, train-1.parquet must be Parquet files"):
        read(folder)
    table = library().Dataset.from_dict({"image": [b"no image", b"none"], "label": [0, 1]})
    (folder / "train-1.parquet").unlink()
    table.to_parquet(str(folder / "train-0.parquet"))
    write([0], "test-0.parquet")
    with pytest.raises(DataError, match=r"row 0 must be an image that can be read"):
        read(tmp_path / "data")


def test_only_a_test_part_is_refused(write: Write) -> None:
    with pytest.raises(DataError, match=r"must hold train-\*\.parquet, got test"):
        read(write([0, 1], "test-0.parquet"))


def test_a_local_data_set_of_the_hub_is_read(write: Write) -> None:
    write([0, 1, 1])
    folder = write([1, 0], "test-0.parquet")
    data = read(f"hf:{folder}")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1, 1], [1, 0])


def test_without_a_network_the_hub_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(path: str, name: str | None, *, trust_remote_code: bool = True) -> None:
        asked.append((path, name, trust_remote_code))
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(library(), "load_dataset", load)
    message = r"data hf:a/b:c must be a data set .*, got ConnectionError: no route to host\. Check"
    with pytest.raises(DataError, match=message):
        read("hf:a/b:c")
    # The code of a data set is never run.
    assert asked == [("a/b", "c", False)]
    monkeypatch.setattr(library(), "load_dataset", lambda *_: {"test": None})
    with pytest.raises(DataError, match="must have a part train, got test"):
        read("hf:a/b")


def test_a_missing_library_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.parquet").touch()
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'modular-manifolds\[datasets\]'"):
        read(tmp_path)
