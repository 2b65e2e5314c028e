"""A complete specification: conversion from and to text, with one-line errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from modular_manifolds.errors import SpecError
from modular_manifolds.specs.errors import in_words
from modular_manifolds.specs.extent import check_extent
from modular_manifolds.specs.text import decoded, dump_yaml, parse_json, parse_yaml, read


class Document(BaseModel):
    """A specification that is a whole file. Every constructor raises SpecError for wrong data."""

    def __init__(self, *args: Any, **data: Any) -> None:
        check_extent(args[0] if args else data)
        with in_words(args[0] if args else data):
            super().__init__(*args, **data)

    def __reduce__(self) -> tuple[Any, ...]:
        # The classes of a network's parts are generated, so pickle cannot find them by name.
        return type(self).model_validate, (self.model_dump(mode="json"),)

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """As in pydantic, but errors are a SpecError of one line."""
        check_extent(obj)
        with in_words(obj):
            return super().model_validate(obj, **options)

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """As in pydantic, but errors are a SpecError of one line, and duplicate keys are refused."""
        text = json_data if isinstance(json_data, str) else decoded(json_data, "the JSON text")
        return cls.model_validate(parse_json(text), **options)

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Read YAML or JSON text."""
        return cls.model_validate(parse_yaml(text))

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a file: JSON if its name ends in `.json`, YAML otherwise.

        Raises:
            SpecError: the file cannot be read, or a key or value is wrong; the message names the file and the
                position in it.
        """
        data = read(path)
        try:
            return cls.model_validate(data)
        except SpecError as error:
            raise SpecError(
                f"{path}: {error.argument}", error.rule, error.seen, error.remedy
            ) from None

    def to_yaml(self) -> str:
        """YAML with every field written out; reading it gives an equal specification."""
        return dump_yaml(self.model_dump(mode="json"))

    def to_json(self) -> str:
        """JSON with every field written out; reading it gives an equal specification."""
        return self.model_dump_json(indent=2) + "\n"
