"""A text, token by token: the next one is to be predicted from those before it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.errors import DataError, SpecError
from modular_manifolds.specs.data import TextSpec
from modular_manifolds.specs.text import decoded
from modular_manifolds.training.documents import Document, documents
from modular_manifolds.training.tokens import Bytes, TokenizerFile, Tokens, tokens_of
from modular_manifolds.training.tokens import Vocabulary as Vocabulary
from modular_manifolds.training.windows import Windows as Windows

HELD_BACK: Final = 10
"""The last tenth of a text is its test part, which training never sees."""


@dataclass(frozen=True, eq=False)
class Text:
    """A text with its fixed split by position; `spec` holds its vocabulary."""

    spec: TextSpec
    tokens: Tokens
    train: Windows
    test: Windows
    names: tuple[str, ...] = ()
    """The files or parts that were read."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The characters, if they are the tokens."""
        assert isinstance(self.tokens, Vocabulary)
        return self.tokens

    @property
    def in_features(self) -> int:
        """How many tokens there are."""
        return len(self.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """The tokens."""
        return self.tokens.names

    @property
    def train_sample(self) -> Windows:
        """The first of the training text, as long as the test part: all of it would take too long."""
        return replace(self.train, tokens=self.train.tokens[: len(self.test.tokens)])

    @property
    def scale(self) -> None:
        """Tokens have no distance."""
        return

    @property
    def summary(self) -> str:
        """A line for the user: the text, its tokens, and its two parts."""
        units = f"{self.spec.unit}s"
        count = len(self.train.tokens) + len(self.test.tokens)
        kinds = f"{count:,} {units}, a vocabulary of {len(self.classes):,}"
        parts = (
            f"{len(self.train.tokens):,} to train and the last {len(self.test.tokens):,} to test"
        )
        files = self.names[0] if len(self.names) == 1 else f"{len(self.names):,} files"
        return f"{files}: {kinds}; {parts}"

    def to(self, device: torch.device) -> Text:
        """The same on `device`."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def read_text(spec: TextSpec) -> Text:
    """Read a text; its first nine tenths train, the last tenth tests.

    Raises:
        DataError: there is no such file, one is empty, all are too short for a window in the last tenth,
            or the tokens are not those that `spec` writes down.
        SpecError: a text is not UTF-8.
    """
    read = documents(spec)
    known, row = _encode(spec, read)
    held_back = len(row) // HELD_BACK
    if held_back <= spec.context:
        raise DataError(
            read[0].name if len(read) == 1 else f"the {len(read)} texts together",
            f"must hold at least {HELD_BACK * (spec.context + 1)} {spec.unit}s for a context of {spec.context}",
            len(row),
            "Use a longer text, or a smaller data.context.",
        )
    return Text(
        spec.model_copy(update=_token_settings(known)),
        known,
        Windows(row[:-held_back], spec.context),
        Windows(row[-held_back:], spec.context),
        tuple(each.name for each in read),
    )


def _encode(spec: TextSpec, read: list[Document]) -> tuple[Tokens, Tensor]:
    """The tokens, and the whole text as a row of them."""
    known = tokens_of(spec)
    if isinstance(known, Bytes):
        return known, known.read(b"".join(each.raw for each in read))
    text = "".join(map(_decode, read))
    found = Vocabulary.from_text(text) if known is None or isinstance(known, Vocabulary) else known
    if isinstance(found, Vocabulary) and spec.characters not in (None, found.characters):
        raise DataError(
            read[0].name if len(read) == 1 else "the texts",
            "must have the characters that the run was started with",
            repr(found.characters),
            "Put back the text, or start a new run.",
        )
    return found, found.encode(text)


def _decode(document: Document) -> str:
    try:
        return decoded(document.raw, document.name)
    except SpecError as error:
        raise SpecError(
            error.argument,
            error.rule,
            error.seen,
            "Save it as UTF-8, or read its bytes as they are with data.tokenizer=byte.",
        ) from None


def _token_settings(known: Tokens) -> dict[str, object]:
    match known:
        case Vocabulary():
            return {"characters": known.characters}
        case TokenizerFile():
            return {"vocabulary": len(known.names), "checksum": known.checksum}
        case _:
            return {}
