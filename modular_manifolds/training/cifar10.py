"""CIFAR-10 from Parquet files in the layout of the Hugging Face data set `uoft-cs/cifar10`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from modular_manifolds.certificates import InputScale
from modular_manifolds.errors import DataError
from modular_manifolds.specs.memory import check_memory
from modular_manifolds.training.hub import quiet_datasets
from modular_manifolds.training.split import Split

NAME = "uoft-cs/cifar10"
MEAN = (0.49139968, 0.48215827, 0.44653124)
STD = (0.24703233, 0.24348505, 0.26158768)
"""Mean and standard deviation of the training images, channel by channel: the numbers the post's code uses."""
SIDE = 32
"""The height and width of an image in pixels."""
BYTES_A_NUMBER = 10
"""Bytes of memory for each number while images are read: as a byte, twice, and as two numbers in float32."""
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def cifar10_scale() -> InputScale:
    """A pixel u in [0, 1] of a channel is seen as `(u − mean)/std` of that channel."""
    pixels = SIDE * SIDE
    mean = torch.tensor(MEAN, dtype=torch.float64).repeat_interleave(pixels)
    std = torch.tensor(STD, dtype=torch.float64).repeat_interleave(pixels)
    return InputScale(mean, std, "pixels in [0, 1]")


def load_cifar10(folder: Path | None) -> tuple[Split, Split, tuple[str, ...]]:
    """Pixels are normalised by channel; an image is 3072 numbers, channel after channel.

    Args:
        folder: holds `train-*.parquet` and `test-*.parquet` with columns `img` and `label` (or has them
            in `plain_text`); without it the library `datasets` downloads them.

    Raises:
        DataError: the library is not installed, files are missing, or columns are not those.
    """
    with quiet_datasets("data cifar10") as datasets:
        parts = {part: _read(datasets, folder, part) for part in ("train", "test")}
    return parts["train"], parts["test"], CLASSES


def _read(datasets: Any, folder: Path | None, part: str) -> Split:
    if folder is None:
        try:
            table = datasets.load_dataset(NAME, split=part)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise DataError(
                f"data {NAME}",
                "must be downloaded where no path is given",
                f"{type(error).__name__}: {' '.join(str(error).split())[:120]}",
                "Pass --data-path with a folder that holds the Parquet files.",
            ) from None
    else:
        files = [str(file) for file in _files(folder, part)]
        try:
            table = datasets.Dataset.from_parquet(files)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise DataError(
                f"{part} files",
                "must be readable Parquet files that hold at least one image",
                f"{type(error).__name__} in {files[0]}",
                f"Download those of {NAME} again.",
            ) from None
    missing = {"img", "label"} - set(table.column_names)
    if missing:
        raise DataError(
            f"{part} files",
            "must have the columns img and label",
            ", ".join(table.column_names),
            f"Use files of {NAME}.",
        )
    check_memory(
        BYTES_A_NUMBER * len(table) * SIDE * SIDE * 3,
        argument=f"{part} files",
        seen=f"{len(table):,} images",
        remedy="Use fewer files.",
        error=DataError,
    )
    # The library keeps what map() made, so that a second run need not decode again.
    decoded = table.cast_column("img", datasets.Image(mode="RGB")).map(
        _decode, batched=True, remove_columns=table.column_names
    )
    arrow = decoded.with_format("arrow")[:]
    pixels = np.frombuffer(b"".join(arrow["pixels"].to_pylist()), dtype=np.uint8)
    if pixels.size != len(table) * SIDE * SIDE * 3:
        raise DataError(
            f"{part} files",
            f"must hold images of {SIDE}×{SIDE} pixels",
            f"{pixels.size / len(table) / 3:.0f} pixels an image",
            f"Use files of {NAME}.",
        )
    images = torch.from_numpy(pixels.reshape(-1, SIDE, SIDE, 3).astype(np.float32) / 255.0)
    normalised = (images - torch.tensor(MEAN)) / torch.tensor(STD)
    labels = torch.from_numpy(np.asarray(arrow["label"].to_pylist(), dtype=np.int64))
    return Split(normalised.permute(0, 3, 1, 2).reshape(len(labels), -1).contiguous(), labels)


def _decode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Pixels as bytes, row by row, red green blue: small to keep and quick to read."""
    pixels = [np.asarray(image, dtype=np.uint8).tobytes() for image in batch["img"]]
    return {"pixels": pixels, "label": batch["label"]}


def _files(folder: Path, part: str) -> list[Path]:
    for place in (folder, folder / "plain_text"):
        found = sorted(place.glob(f"{part}-*.parquet"))
        if found:
            return found
    raise DataError(
        "data path",
        f"must hold {part}-*.parquet",
        str(folder),
        f"Download the Parquet files of {NAME} into it.",
    )
