"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

TEMPORARY: Final = re.compile(r"\.[0-9a-f]{32}\.tmp")
"""The names that `temporary_beside` gives."""


def temporary_beside(path: Path) -> Path:
    """A name in the folder of `path` that nothing has yet."""
    # Not with_name: a path such as "." has no name to replace.
    return path.parent / f".{uuid.uuid4().hex}.tmp"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give the body a temporary file beside `path`, and rename it to `path` after the body.

    `path` holds the old file or the whole new one at any time, even if the process is killed. The bytes reach
    the disk before the name does, so this also holds for a loss of power. A body that raises leaves no file.

    A link stays a link to the new file. A device or a pipe, as /dev/stdout, is written to and stays what it is.

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
    """Write a text file in UTF-8: `path` holds the old text or the whole new one.

    Raises:
        OSError: the file cannot be written.
    """
    # Encoded first, so that text which is no UTF-8 leaves no file. A file name on Linux may hold any byte.
    content = text.encode("utf-8", errors="backslashreplace")
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def flush(path: Path) -> None:
    """Wait until the bytes of a file are on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files that a killed process left in `folder`; no other process may write there."""
    for each in folder.glob(".*.tmp"):
        if TEMPORARY.fullmatch(each.name):
            with suppress(OSError):
                each.unlink()


def _is_stream(path: Path) -> bool:
    """Whether a path names a device, a pipe or an open stream, which no file may replace."""
    named = path.absolute().parts[:2] in ((os.sep, "dev"), (os.sep, "proc"))
    return path.exists() and (named or not (path.is_file() or path.is_dir()))


def _flush_folder(folder: Path) -> None:
    # Not every system lets a folder be opened; the file itself is safe without it.
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
