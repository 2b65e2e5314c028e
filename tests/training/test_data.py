"""Data sets: the bundled digits, and CIFAR-10 in its Parquet layout."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from modular_manifolds.errors import DataError
from modular_manifolds.training import load_data
from modular_manifolds.training.cifar10 import MEAN, STD


def test_digits_are_real_and_split_once() -> None:
    data = load_data("digits")
    assert len(data.train.labels) + len(data.test.labels) == 1797
    assert len(data.test.labels) == 359
    assert data.train.images.shape[1] == data.in_features == 64
    assert data.train.images.dtype == torch.float32
    assert data.train.labels.dtype == torch.int64
    assert float(data.train.images.min()) == -2.0
    assert float(data.train.images.max()) == 2.0
    assert set(data.train.labels.tolist()) == set(data.test.labels.tolist()) == set(range(10))
    again = load_data("digits")
    assert torch.equal(again.train.images, data.train.images)
    pairs = {tuple(row) for row in data.train.images.tolist()}
    assert not any(tuple(row) in pairs for row in data.test.images.tolist())


def test_the_digits_are_those_of_the_source() -> None:
    """Every pixel and label, by their checksums."""
    data = load_data("digits")
    images, labels = torch.empty(1797, 64), torch.empty(1797, dtype=torch.int64)
    test = torch.arange(1797) % 5 == 4
    for part, chosen in ((data.train, ~test), (data.test, test)):
        images[chosen], labels[chosen] = part.images.reshape(-1, 64), part.labels
    pixels = (4 * images + 8).to(torch.uint8)
    assert zlib.crc32(pixels.numpy().tobytes()) == 4087501628
    assert zlib.crc32(labels.to(torch.uint8).numpy().tobytes()) == 4168075561


def test_a_pixel_of_the_digits_is_what_its_scale_says() -> None:
    data = load_data("digits")
    steps = 16 * data.scale.undone(data.train.images)
    assert (float(steps.min()), float(steps.max())) == (0.0, 16.0)
    assert torch.equal(steps, steps.round())
    assert data.scale.shortest == 0.25


def test_unknown_names_and_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data must be one of digits, cifar10, got 'mnist'"):
        load_data("mnist")
    with pytest.raises(DataError, match="data path must be a folder that exists, got"):
        load_data("cifar10", tmp_path / "nowhere")
    with pytest.raises(DataError, match="must be left out for the bundled digits"):
        load_data("digits", tmp_path)


Writer = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """Writes Parquet files of small random images, with the library's cache beside them."""
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def make(
        part: str, images: np.ndarray, labels: list[int], *, under: str = "", column: str = "img"
    ) -> Path:
        import pyarrow

        encoded = []
        for each in images:
            buffer = io.BytesIO()
            image.fromarray(each).save(buffer, format="PNG")
            encoded.append({"bytes": buffer.getvalue(), "path": None})
        folder = tmp_path / "data" / under
        folder.mkdir(parents=True, exist_ok=True)
        kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        table = pyarrow.table(
            {column: pyarrow.array(encoded, kind), "label": pyarrow.array(labels, pyarrow.int64())}
        )
        parquet.write_table(table, folder / f"{part}-00000-of-00001.parquet")
        return tmp_path / "data"

    return make


def pixels(count: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("under", ["", "plain_text"])
def test_cifar10_is_read_normalised_and_channel_first(write: Writer, under: str) -> None:
    images = pixels(7)
    write("train", images, [0, 1, 2, 3, 4, 5, 9], under=under)
    folder = write("test", images[:3], [7, 8, 9], under=under)
    data = load_data("cifar10", folder)
    assert data.train.labels.tolist() == [0, 1, 2, 3, 4, 5, 9]
    assert data.test.labels.tolist() == [7, 8, 9]
    assert data.in_features == 3072
    assert data.classes[9] == "truck"
    expected = (images / 255.0 - np.array(MEAN)) / np.array(STD)
    wanted = torch.from_numpy(expected.transpose(0, 3, 1, 2).reshape(7, -1)).float()
    torch.testing.assert_close(data.train.images, wanted, atol=1e-5, rtol=1e-5)
    back = data.scale.undone(data.train.images).reshape(7, 3, 32, 32).permute(0, 2, 3, 1)
    torch.testing.assert_close(back, torch.from_numpy(images / 255.0).float(), atol=1e-5, rtol=1e-5)
    assert 0.24348 < data.scale.shortest < STD[1]
    # The second time from the library's cache.
    torch.testing.assert_close(load_data("cifar10", folder).train.images, data.train.images)


def test_cifar10_in_another_layout_is_refused(write: Writer, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"must hold train-\*.parquet"):
        load_data("cifar10", tmp_path / "empty")
    write("train", pixels(2), [0, 1], column="image")
    folder = write("test", pixels(2), [0, 1])
    with pytest.raises(DataError, match="must have the columns img and label, got image, label"):
        load_data("cifar10", folder)


def test_empty_small_and_mislabelled_data_are_refused(write: Writer) -> None:
    folder = write("test", pixels(2), [0, 1])
    write("train", pixels(0), [])
    with pytest.raises(
        DataError, match="must be readable Parquet files that hold at least one image"
    ):
        load_data("cifar10", folder)
    (folder / "train-00000-of-00001.parquet").write_bytes(b"not a table")
    with pytest.raises(DataError, match="must be readable Parquet files"):
        load_data("cifar10", folder)
    write("train", pixels(2, side=16), [0, 1])
    with pytest.raises(DataError, match="must hold images of 32×32 pixels"):
        load_data("cifar10", folder)
    write("train", pixels(2), [0, 10])
    with pytest.raises(DataError, match="must have labels from 0 to 9, got 0 to 10"):
        load_data("cifar10", folder)


def test_a_missing_library_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'modular-manifolds\[datasets\]'"):
        load_data("cifar10", tmp_path)
