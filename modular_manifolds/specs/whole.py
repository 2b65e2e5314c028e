"""Atomic writing of files."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from modular_manifolds.errors import DataError

TEMPORARY: Final = re.compile(r"\.[0-9a-f]{32}\.tmp")
"""The names that `temporary_beside` gives."""


def temporary_beside(path: Path) -> Path:
    """An unused name in the folder of `path`."""
    # Not with_name: a path such as "." has no name to replace.
    return path.parent / f".{uuid.uuid4().hex}.tmp"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A context with a temporary file next to `path`, which is renamed to `path` at the end.

    `path` always holds the old file or the complete new one, even if the process is killed or power fails: the bytes reach
    the disk before the rename. If the body raises, no file remains.

    A link remains a link to the new file. Devices and pipes, such as /dev/stdout, are written to directly.

    Raises:
        OSError: a file cannot be made, written or renamed there.
    """
    if _is_stream(path):
        with TemporaryDirectory() as folder:
            temporary = Path(folder) / "file"
            temporary.touch()
            yield temporary
            with path.open("ab") as stream:
                stream.write(temporary.read_bytes())
        return
    path = Path(os.path.realpath(path))
    temporary = temporary_beside(path)
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        flush(temporary)
        temporary.replace(path)
        _flush_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_whole(path: Path, text: str) -> None:
    """Write a text file in UTF-8 atomically: `path` holds the old or the complete new text.

    Raises:
        OSError: the file cannot be written.
    """
    # Encode before the file is made. Linux file names may hold bytes that are not UTF-8.
    content = text.encode("utf-8", errors="backslashreplace")
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def check_writable(path: Path, *, argument: str) -> None:
    """Find out whether `write_whole` can write `path`, before the work whose result it is to hold; no file remains.

    Raises:
        DataError: the file cannot be written.
    """
    with writing(argument, path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "Is a directory")
        if not _is_stream(path):
            temporary = temporary_beside(Path(os.path.realpath(path)))
            temporary.touch(exist_ok=False)
            temporary.unlink()


@contextmanager
def writing(argument: str, path: Path) -> Iterator[None]:
    """A context in which an OSError becomes a DataError about the file `path` that the caller named by `argument`."""
    try:
        yield
    except OSError as error:
        raise DataError(
            argument, "must be a file that can be written", str(path), f"{error.strerror}."
        ) from None


def flush(path: Path) -> None:
    """Wait until the bytes of a file are on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def remove_temporaries(folder: Path) -> None:
    """Remove temporary files of killed processes from `folder`; no other process may write there."""
    for each in folder.glob(".*.tmp"):
        if TEMPORARY.fullmatch(each.name):
            with suppress(OSError):
                each.unlink()


def _is_stream(path: Path) -> bool:
    """Whether a path is a device, a pipe or an open stream, which must not be replaced by a file."""
    named = path.absolute().parts[:2] in ((os.sep, "dev"), (os.sep, "proc"))
    return path.exists() and (named or not (path.is_file() or path.is_dir()))


def _flush_folder(folder: Path) -> None:
    # Some systems cannot open folders; the file itself is safe anyway.
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
