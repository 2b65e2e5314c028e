"""Exclusive folders for runs and sweeps."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modular_manifolds.errors import DataError
from modular_manifolds.specs.whole import TEMPORARY, temporary_beside, write_whole

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None


def claim(path: Path, name: str, text: str) -> None:
    """Make the folder `path` with the file `name` in it. If several processes try, exactly one succeeds.

    The folder and its file appear at the same moment. An existing empty folder is accepted too.

    Raises:
        FileExistsError: the folder is in use.
        DataError: it cannot be made or written.
    """
    try:
        # Handled separately: a file with the name of a parent does not mean a folder in use.
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(error.errno, "A file has the name of its parent") from None
        if not _is_free(path):
            raise FileExistsError
        _make(path, name, text)
    except FileExistsError:
        raise
    except OSError as error:
        raise DataError(
            "--out", "must be a folder that can be written", str(path), f"{error.strerror}."
        ) from None


def _is_free(path: Path) -> bool:
    """Whether `path` does not exist, or is an empty folder."""
    if not path.exists():
        return True
    return path.is_dir() and all(TEMPORARY.fullmatch(each.name) for each in path.iterdir())


def _make(path: Path, name: str, text: str) -> None:
    if path.is_dir():
        _create(path / name, text)
        return
    made = temporary_beside(path)
    made.mkdir()
    try:
        write_whole(made / name, text)
        # A rename replaces an empty folder, but never a folder with content.
        made.rename(path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def lock(file: Path, *, argument: str) -> Iterator[None]:
    """A context with a lock on `file`, so that no second process works in its folder.

    The system releases the lock when the process ends for any reason. Windows and some file systems have no such locks;
    `claim` works there too.

    Raises:
        DataError: another process holds it, or the file cannot be opened for writing.
    """
    try:
        opened = file.open("rb+")
    except OSError as error:
        raise DataError(
            argument,
            "must be a folder that can be written",
            str(file.parent),
            f"{error.strerror}: {file.name}.",
        ) from None
    with opened:
        if fcntl is not None:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(
                    argument,
                    "must be a folder in which no other process works",
                    str(file.parent),
                    "Wait until that process has ended, or choose another folder.",
                ) from None
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                    raise
        yield


def _create(path: Path, text: str) -> None:
    """Write a new file atomically. If several processes try, exactly one succeeds."""
    temporary = temporary_beside(path)
    try:
        write_whole(temporary, text)
        try:
            # Making a link fails if the name is taken.
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:
            # Without links the creation is still exclusive, but the text is not written atomically.
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    finally:
        temporary.unlink(missing_ok=True)
