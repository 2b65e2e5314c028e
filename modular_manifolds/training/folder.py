"""A folder that one run or one sweep has for itself."""

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
    """Make the folder `path` with the file `name` in it; of several processes exactly one succeeds.

    A new folder appears with its file in it: no moment shows it without. An empty folder is taken too.

    Raises:
        FileExistsError: the folder is in use.
        DataError: it cannot be made or written.
    """
    try:
        # On its own, because a file in the place of a parent is no folder in use.
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
    """Whether `path` is no file and no folder yet, or an empty folder."""
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
        # A folder can be renamed to an empty one, and never to one that holds anything.
        made.rename(path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def held(file: Path, *, argument: str) -> Iterator[None]:
    """Hold a lock on `file` while inside, so that no second process works in its folder.

    The system drops the lock when the process ends, however it ends. Windows and file systems without locks
    have no such lock; `claim` holds there too.

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
    """Write a file that is not there yet, whole; of several processes exactly one succeeds."""
    temporary = temporary_beside(path)
    try:
        write_whole(temporary, text)
        try:
            # A link is made to a name that is free, or not at all.
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:
            # A file system without links: the name is still taken once, the text is not whole at once.
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    finally:
        temporary.unlink(missing_ok=True)
