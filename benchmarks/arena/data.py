"""Data of the tasks: batches to train on, drawn at random, and fixed batches to validate on."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from modular_manifolds.training.data import load_data

CONTEXT = 64
"""The number of characters that a language model sees."""

TEXT_WINDOWS = 256
"""The number of windows of a text that validation takes."""

PYTHON_CHARACTERS = 1_000_000
"""The number of characters of Python's library that are read, at most."""

VALIDATION_IMAGES = 2048
"""The number of test images that validation takes, at most."""

VALIDATION_BATCH = 64
"""The number of examples of a validation batch."""

Batch = tuple[Tensor, Tensor]
"""Inputs and labels."""


@dataclass(frozen=True)
class Sources:
    """The places of data that is not bundled; a task asks for its own."""

    text: Path | None = None
    images: Path | None = None


@dataclass(frozen=True)
class Data:
    """Examples of one task.

    Args:
        draw: `draw(generator, count)` is a batch of `count` training examples.
        valid: the validation examples, in batches.
        classes: the number of labels.
    """

    draw: Callable[[torch.Generator, int], Batch]
    valid: tuple[Batch, ...]
    classes: int


def text(sources: Sources) -> Data:
    """Characters of a text, each from the characters before it; the last tenth validates."""
    if sources.text is None:
        raise SystemExit("a task on text needs --text FILE")
    return _text(sources.text)


def digits(sources: Sources) -> Data:
    """The digits that come with the package, 64 pixels each."""
    del sources
    return _images("digits", None, (64,))


def digit_pixels(sources: Sources) -> Data:
    """The digits that come with the package, as images of 1×8×8 numbers."""
    del sources
    return _images("digits", None, (1, 8, 8))


def python_text(sources: Sources) -> Data:
    """Characters of Python's own library: its modules without a folder, by name, as far as `PYTHON_CHARACTERS`."""
    del sources
    return _python_text()


def photographs(sources: Sources) -> Data:
    """CIFAR-10: photographs of 3×32×32 numbers."""
    if sources.images is None:
        raise SystemExit("a task on photographs needs --images DIR with CIFAR-10's Parquet files")
    return _images("cifar10", sources.images, (3, 32, 32))


@cache
def _text(path: Path) -> Data:
    return _language(path.read_text(encoding="utf-8"))


@cache
def _python_text() -> Data:
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    characters = "".join(path.read_text(encoding="utf-8") for path in modules)
    # Letters of other languages are rare there: each would be a class with hardly an example.
    return _language(characters.encode("ascii", "ignore").decode()[:PYTHON_CHARACTERS])


def _language(characters: str) -> Data:
    alphabet = sorted(set(characters))
    number = {character: index for index, character in enumerate(alphabet)}
    tokens = torch.tensor([number[character] for character in characters])
    cut = len(tokens) * 9 // 10
    train, valid = tokens[:cut], tokens[cut:]

    def draw(generator: torch.Generator, count: int) -> Batch:
        places = torch.randint(len(train) - CONTEXT, (count, 1), generator=generator)
        windows = train[places + torch.arange(CONTEXT + 1)]
        return windows[:, :-1], windows[:, 1:]

    # Windows end to end, evenly spread over the held-out text.
    windows = valid.unfold(0, CONTEXT + 1, CONTEXT)
    chosen = windows[:: max(1, len(windows) // TEXT_WINDOWS)][:TEXT_WINDOWS]
    return Data(draw, _batches(chosen[:, :-1], chosen[:, 1:]), len(alphabet))


@cache
def _images(name: str, folder: Path | None, shape: tuple[int, ...]) -> Data:
    known = load_data(name, folder)
    images, labels = known.train.images.unflatten(1, shape), known.train.labels

    def draw(generator: torch.Generator, count: int) -> Batch:
        places = torch.randint(len(images), (count,), generator=generator)
        return images[places], labels[places]

    held_out = known.test.images[:VALIDATION_IMAGES].unflatten(1, shape)
    valid = _batches(held_out, known.test.labels[:VALIDATION_IMAGES])
    return Data(draw, valid, len(known.classes))


def _batches(inputs: Tensor, labels: Tensor) -> tuple[Batch, ...]:
    parts = zip(inputs.split(VALIDATION_BATCH), labels.split(VALIDATION_BATCH), strict=True)
    return tuple(parts)
