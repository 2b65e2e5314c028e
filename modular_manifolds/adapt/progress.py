"""Progress of the measuring passes: a bar on a terminal, and nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, TypeAlias

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with the passes done, all passes, and the words for the last one."""

WIDTH: Final = 24
"""The width of the bar in characters."""


def progress_of(progress: bool | Progress) -> Progress | None:
    """The function that reports: the caller's own, a bar if standard error is a terminal, or none."""
    if callable(progress):
        return progress
    return _bar if progress and sys.stderr.isatty() else None


def _bar(done: int, total: int, words: str) -> None:
    filled = WIDTH * done // total
    end = "\n" if done == total else ""
    line = f"\rmeasuring [{'#' * filled}{'.' * (WIDTH - filled)}] {done}/{total} {words:<24}"
    sys.stderr.write(line + end)
    sys.stderr.flush()
