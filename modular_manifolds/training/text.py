"""A text, character by character: the next one is to be predicted from those before it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from modular_manifolds.errors import DataError
from modular_manifolds.specs.data import TextSpec
from modular_manifolds.specs.memory import check_memory
from modular_manifolds.specs.text import decoded

BYTES_A_CHARACTER: Final = 17
"""Bytes of memory for each character while a text is read: the text itself, its code points twice, its tokens."""
HELD_BACK: Final = 10
"""The last tenth of a text is its test part, which training never sees."""


@dataclass(frozen=True)
class Vocabulary:
    """The characters that are tokens: token i is `characters[i]`, in order of their code points."""

    characters: str

    def encode(self, text: str) -> Tensor:
        """The token of each character, int64 of shape (characters,).

        Raises:
            DataError: a character is not in the vocabulary.
        """
        known, seen = _code_points(self.characters), _code_points(text)
        places = np.searchsorted(known, seen).clip(max=len(known) - 1)
        strange = seen[known[places] != seen]
        if strange.size:
            raise DataError(
                "text",
                f"must be of the {len(known)} characters that the network knows",
                repr(chr(strange[0])),
                f"Known here: {self.characters!r}.",
            )
        return torch.from_numpy(places.astype(np.int64))

    def decode(self, tokens: Tensor) -> str:
        """The text of `tokens`, of shape (characters,)."""
        return "".join(self.characters[token] for token in tokens.tolist())


@dataclass(frozen=True, eq=False)
class Windows:
    """`tokens`, of shape (characters,), seen through windows: `context` inputs and the token after each."""

    tokens: Tensor
    context: int

    def __len__(self) -> int:
        """How many windows cover the part once: every token but the first is a label."""
        return math.ceil((len(self.tokens) - 1) / self.context)

    def drawn(self, generator: torch.Generator) -> Tensor:
        """The starts of as many random windows as cover the part once."""
        return torch.randint(len(self.tokens) - self.context, (len(self),), generator=generator)

    def take(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and labels, each of shape (windows, context), of the windows that start at `chosen`."""
        places = chosen.unsqueeze(-1) + torch.arange(self.context + 1, device=chosen.device)
        windows = self.tokens[places]
        return windows[:, :-1], windows[:, 1:]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows end to end, then one with what is left: every token but the first is a label once."""
        whole = (len(self.tokens) - 1) // self.context
        for starts in (torch.arange(whole) * self.context).to(self.tokens.device).split(size):
            yield self.take(starts)
        rest = self.tokens[whole * self.context :]
        if len(rest) > 1:
            yield rest[None, :-1], rest[None, 1:]

    def to(self, device: torch.device) -> Windows:
        """The same on `device`."""
        return replace(self, tokens=self.tokens.to(device))


@dataclass(frozen=True, eq=False)
class Text:
    """A text with its fixed split by position; `spec` holds its vocabulary."""

    spec: TextSpec
    vocabulary: Vocabulary
    train: Windows
    test: Windows

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.vocabulary.characters)

    @property
    def in_features(self) -> int:
        """How many tokens there are."""
        return len(self.vocabulary.characters)

    @property
    def seen(self) -> Windows:
        """The first of the training text, as long as the test part: the whole would take too long."""
        return replace(self.train, tokens=self.train.tokens[: len(self.test.tokens)])

    @property
    def scale(self) -> None:
        """Characters have no distance."""
        return None

    def to(self, device: torch.device) -> Text:
        """The same on `device`."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def read_text(spec: TextSpec) -> Text:
    """Read a text; its first nine tenths train, the last tenth tests.

    Raises:
        DataError: there is no such file, it is empty or too short for a window in its last tenth,
            or its characters are not those that `spec` writes down.
        SpecError: it is not UTF-8.
    """
    file = _file(spec.path)
    try:
        check_memory(
            BYTES_A_CHARACTER * file.stat().st_size,
            argument=str(file),
            seen=f"{file.stat().st_size:,} bytes of text",
            remedy="Use a part of it.",
            error=DataError,
        )
        text = decoded(file.read_bytes(), str(file))
    except OSError as error:
        raise DataError(
            "data path", "must be a readable text file", f"{file}: {error.strerror}", "Check it."
        ) from None
    held_back = len(text) // HELD_BACK
    if held_back <= spec.context:
        raise DataError(
            str(file),
            f"must hold at least {HELD_BACK * (spec.context + 1)} characters for a context of {spec.context}",
            len(text),
            "Use a longer text, or a smaller data.context.",
        )
    codes = _code_points(text)
    characters = "".join(map(chr, np.unique(codes)))
    if spec.characters not in (None, characters):
        raise DataError(
            str(file),
            "must have the characters that the run was started with",
            repr(characters),
            "Put back the text, or start a new run.",
        )
    vocabulary = Vocabulary(characters)
    tokens = vocabulary.encode(text)
    return Text(
        spec.model_copy(update={"characters": characters}),
        vocabulary,
        Windows(tokens[:-held_back], spec.context),
        Windows(tokens[-held_back:], spec.context),
    )


def _file(path: str | None) -> Path:
    if path is None:
        raise DataError(
            "data path",
            "must be given for text",
            "nothing",
            "Pass --data-path FILE, a text in UTF-8.",
        )
    place = Path(path).expanduser()
    if not place.is_dir():
        return place
    found = sorted(place.glob("*.txt"))
    if len(found) != 1:
        raise DataError(
            "data path",
            "must be a file, or a folder that holds exactly one .txt",
            f"{place} with {', '.join(each.name for each in found) or 'none'}",
            "Pass the file itself.",
        )
    return found[0]


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
