"""A text of one's own as a run names it: its place, and how it is cut into tokens."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator

from modular_manifolds.specs.base import Spec, refused
from modular_manifolds.specs.data_sizes import Sizes, Usual, absolute

CHAR: Final = "char"
BYTE: Final = "byte"
BYTES: Final = 256
"""The number of tokens of the byte tokenizer."""


class TextSpec(Spec):
    """A text whose next token a run learns to predict."""

    name: Literal["text"]
    path: str | None = None
    """The text: a file, a folder of text files, or `hf:NAME`. It must be given."""
    context: Annotated[int, Field(ge=1)] = 128
    """How many tokens the network sees at once."""
    tokenizer: str = CHAR
    """`char` for a token a character, `byte` for a token a byte, or a file `.json` of the library tokenizers."""
    text_column: str = "text"
    """The column of a data set of the hub that holds the text."""
    characters: str | None = None
    """The vocabulary of `char`, a token each; null for the characters of the text, in order of their code points."""
    vocabulary: Annotated[int, Field(ge=1)] | None = None
    """The number of tokens of a tokenizer file; null for the file's own. A resolved run has it."""
    checksum: str | None = None
    """The SHA-256 of a tokenizer file, so that a resumed run has the same tokens. A resolved run has it."""

    @field_validator("tokenizer")
    @classmethod
    def _known_tokenizer(cls, tokenizer: str) -> str:
        if tokenizer not in (CHAR, BYTE) and not tokenizer.endswith(".json"):
            raise refused(
                "must be char, byte or a file whose name ends in .json",
                "Write char, byte, or the path of a tokenizer.json.",
            )
        return tokenizer

    @property
    def from_file(self) -> bool:
        """Whether the tokenizer is a file."""
        return self.tokenizer not in (CHAR, BYTE)

    @property
    def unit(self) -> str:
        """The word for a token."""
        return {CHAR: "character", BYTE: "byte"}.get(self.tokenizer, "token")

    @property
    def unread(self) -> str:
        """The field that is null until the data are read."""
        return "characters"

    @property
    def sizes(self) -> Sizes | None:
        """Vocabulary and vocabulary, if it is written down."""
        known = BYTES if self.tokenizer == BYTE else self.vocabulary
        if self.tokenizer == CHAR and self.characters is not None:
            known = len(self.characters)
        return None if known is None else Sizes(in_features=known, classes=known)

    def usual(self, examples: int | None = None) -> Usual:
        """The language model, and a batch of few windows: each has `context` labels."""
        return Usual({"name": "gpt"}, 16 if examples is None else min(16, examples))

    def with_absolute_path(self) -> Self:
        """The same from any folder."""
        update = {"path": absolute(self.path)}
        if self.from_file:
            update["tokenizer"] = absolute(self.tokenizer)
        return self.model_copy(update=update)
