"""The files or the rows that make up a text."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from modular_manifolds.errors import DataError
from modular_manifolds.specs.data import TextSpec
from modular_manifolds.specs.data_sizes import HUB
from modular_manifolds.specs.memory import check_memory
from modular_manifolds.training.hub import column, from_hub

SUFFIXES: Final = (".txt", ".text", ".md", ".rst", ".tex", ".org")
"""The names of text files in a folder end so, in capitals or not."""

BYTES_A_BYTE: Final = 17
"""Bytes of memory for each byte of a text while it is read: the text itself, its code points twice, its tokens."""


class Document(NamedTuple):
    """A text as its bytes."""

    name: str
    raw: bytes


def documents(spec: TextSpec) -> list[Document]:
    """The texts that a run names, in order.

    Raises:
        DataError: there is none, or one is empty or cannot be read.
    """
    if spec.path is None:
        raise DataError(
            "data path",
            "must be given for text",
            "nothing",
            "Pass --data-path FILE, a text in UTF-8, or a folder of them.",
        )
    if spec.path.startswith(HUB):
        return [_rows(spec.path, spec.text_column)]
    place = Path(spec.path).expanduser()
    if not place.is_dir():
        return _files([place])
    found = sorted(
        each
        for each in place.rglob("*")
        if each.suffix.lower() in SUFFIXES and each.is_file() and not _is_hidden(each, place)
    )
    if not found:
        raise DataError(
            "data path",
            f"must be a file, or a folder with text files ({', '.join(SUFFIXES)})",
            f"{place} with none",
            "Pass the file itself.",
        )
    return _files(found)


def _files(paths: list[Path]) -> list[Document]:
    try:
        size = sum(each.stat().st_size for each in paths)
        check_memory(
            BYTES_A_BYTE * size,
            argument="data path",
            seen=f"{size:,} bytes of text",
            remedy="Use a part of it.",
            error=DataError,
        )
        read = [_check_not_empty(Document(str(each), each.read_bytes())) for each in paths]
    except OSError as error:
        raise DataError(
            "data path",
            "must be a readable text file",
            f"{error.filename}: {error.strerror}",
            "Check it.",
        ) from None
    *others, last = read
    return [*map(_end_last_line, others), last]


def _end_last_line(document: Document) -> Document:
    """The same with its last line ended, so that no word goes on in the next text."""
    return (
        document if document.raw.endswith(b"\n") else Document(document.name, document.raw + b"\n")
    )


def _rows(path: str, name: str) -> Document:
    """The training part of a data set of the hub, a line a row."""
    table = from_hub(path)["train"]
    rows = column(table, name, setting="data.text_column", where=path)
    for number, row in enumerate(rows):
        if not isinstance(row, str):
            raise DataError(
                f"{path}, row {number}",
                f"must hold text in the column {name}",
                type(row).__name__,
                "Name another column with data.text_column.",
            )
    return _check_not_empty(Document(path, "\n".join(rows).encode()))


def _check_not_empty(document: Document) -> Document:
    if not document.raw:
        raise DataError(
            document.name, "must hold a text", "an empty file", "Fill it, or take it away."
        )
    return document


def _is_hidden(file: Path, below: Path) -> bool:
    return any(each.startswith(".") for each in file.relative_to(below).parts)
