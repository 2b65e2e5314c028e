"""Tokens of a text, and back: a token a character, a token a byte, or the tokens of a tokenizer file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from modular_manifolds.errors import DataError
from modular_manifolds.specs.own_text import BYTE, BYTES, TextSpec
from modular_manifolds.training.extras import library


class Tokens(Protocol):
    """A fixed set of tokens; token i has the name `names[i]`."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def encode(self, text: str) -> Tensor:
        """The tokens of a text, int64 of shape (tokens,)."""
        ...

    def decode(self, tokens: Tensor) -> str:
        """The text of `tokens`, of shape (tokens,)."""
        ...


@dataclass(frozen=True)
class Vocabulary:
    """The characters that are tokens: token i is `characters[i]`, in order of their code points."""

    characters: str

    @classmethod
    def from_text(cls, text: str) -> Vocabulary:
        """The characters that appear in `text`."""
        return cls("".join(map(chr, np.unique(_code_points(text)))))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.characters)

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


@dataclass(frozen=True)
class Bytes:
    """The 256 bytes: any file is a text of them."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"0x{byte:02x}" for byte in range(BYTES))

    def encode(self, text: str) -> Tensor:
        """The bytes of the text in UTF-8."""
        return self.read(text.encode())

    def read(self, raw: bytes) -> Tensor:
        """A token for each byte of a file."""
        return torch.from_numpy(np.frombuffer(raw, dtype=np.uint8).astype(np.int64))

    def decode(self, tokens: Tensor) -> str:
        """The text in UTF-8; a replacement character stands for bytes that are none."""
        return bytes(tokens.tolist()).decode("utf-8", errors="replace")


@dataclass(frozen=True, eq=False)
class TokenizerFile:
    """The tokens of a file `tokenizer.json`, as the library tokenizers reads it; special tokens are not put in."""

    tokenizer: Any
    names: tuple[str, ...]
    checksum: str

    def encode(self, text: str) -> Tensor:
        return torch.tensor(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Tensor) -> str:
        return self.tokenizer.decode(tokens.tolist(), skip_special_tokens=False)


def tokens_of(spec: TextSpec) -> Tokens | None:
    """The tokens that a run names; None if they are the characters of a text that has not been read.

    Raises:
        DataError: a tokenizer file is missing, damaged, another one than the run was started with, or the
            library that reads it is not installed.
    """
    if spec.from_file:
        return _from_file(spec)
    if spec.tokenizer == BYTE:
        return Bytes()
    return None if spec.characters is None else Vocabulary(spec.characters)


def _from_file(spec: TextSpec) -> TokenizerFile:
    tokenizers = library("tokenizers", extra="tokenizers", purpose="data.tokenizer")
    file = Path(spec.tokenizer).expanduser()
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise DataError(
            "data.tokenizer",
            "must be a file that can be read",
            f"{file}: {error.strerror}",
            "Check the path, or write char or byte.",
        ) from None
    checksum = hashlib.sha256(raw).hexdigest()
    if spec.checksum not in (None, checksum):
        raise DataError(
            str(file),
            "must be the tokenizer that the run was started with",
            "a file with other bytes",
            "Put back the file, or start a new run.",
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_str(raw.decode())
    # The library raises a bare Exception for whatever it cannot read.
    except Exception as error:
        raise DataError(
            str(file),
            "must be a tokenizer.json of the library tokenizers",
            " ".join(str(error).split())[:120],
            "Save the tokenizer again with its method `save`.",
        ) from None
    # A file may say that a text is cut after so many tokens, or filled up to as many.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    known: dict[str, int] = tokenizer.get_vocab()
    by_number = {number: name for name, number in known.items()}
    size = max(by_number, default=-1) + 1
    names = tuple(by_number.get(number, f"[{number}]") for number in range(size))
    return TokenizerFile(tokenizer, names, checksum)


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
