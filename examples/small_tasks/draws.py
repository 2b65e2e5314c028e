"""Batches of data: characters of a text in three ways, and photographs."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

CONTEXT: Final = 64
"""The number of characters that a model sees at once."""
BATCH: Final = 16

Batch = dict[str, Tensor]
Draw = Callable[[torch.Generator], Batch]
"""Draws a batch: the model's inputs by name, and `labels`."""


def windows(tokens: Tensor, length: int, generator: torch.Generator) -> Tensor:
    places = torch.randint(len(tokens) - length, (BATCH, 1), generator=generator)
    return tokens[places + torch.arange(length)]


def next_character(tokens: Tensor, key: str = "input_ids") -> Draw:
    def draw(generator: torch.Generator) -> Batch:
        cut = windows(tokens, CONTEXT + 1, generator)
        return {key: cut[:, :-1], "labels": cut[:, 1:].contiguous()}

    return draw


def masked(tokens: Tensor, mask: int) -> Draw:
    """15 % of the characters are hidden and predicted."""

    def draw(generator: torch.Generator) -> Batch:
        cut = windows(tokens, CONTEXT, generator)
        hidden = torch.rand(cut.shape, generator=generator) < 0.15
        return {
            "input_ids": cut.masked_fill(hidden, mask),
            "labels": cut.masked_fill(~hidden, -100),
        }

    return draw


def continuation(tokens: Tensor, source: str, target: str) -> Draw:
    """Windows whose first half asks for the second."""

    def draw(generator: torch.Generator) -> Batch:
        first, second = windows(tokens, CONTEXT, generator).chunk(2, dim=1)
        before = torch.cat((first[:, -1:], second[:, :-1]), dim=1)
        return {source: first, target: before, "labels": second.contiguous()}

    return draw


def photographs(folder: Path, split: str) -> Draw:
    """Images and labels of Parquet files with the columns `img` and `label`."""
    pandas = importlib.import_module("pandas")
    image = importlib.import_module("PIL.Image")
    numpy = importlib.import_module("numpy")
    files = sorted(folder.rglob(f"*{split}*.parquet"))
    if not files:
        raise SystemExit(f"--images must hold *{split}*.parquet, and {folder} holds none")
    table = pandas.concat([pandas.read_parquet(file) for file in files]).iloc[:10_000]
    pixels = [numpy.asarray(image.open(io.BytesIO(each["bytes"]))) for each in table["img"]]
    images = torch.from_numpy(numpy.stack(pixels)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    labels = torch.tensor(table["label"].to_numpy())

    def draw(generator: torch.Generator) -> Batch:
        places = torch.randint(len(images), (4 * BATCH,), generator=generator)
        return {"pixel_values": images[places], "labels": labels[places]}

    return draw


def as_input(draw: Draw) -> Draw:
    """The same photographs under the name that `nn.Sequential` takes."""

    def renamed(generator: torch.Generator) -> Batch:
        batch = draw(generator)
        return {"input": batch["pixel_values"], "labels": batch["labels"]}

    return renamed
