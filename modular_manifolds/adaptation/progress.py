"""Progress of the measuring passes: a bar on a terminal, and no output elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, TypeAlias

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with the number of finished passes, the number of all passes, and a description of the last one."""

BAR_CHARACTERS: Final = 24
"""The width of the bar in characters."""


def progress_of(progress: bool | Progress) -> Progress | None:
    """The caller's own function, a bar if standard error is a terminal, or None."""
    if callable(progress):
        return progress
    return _bar if progress and sys.stderr.isatty() else None


def _bar(done: int, total: int, words: str) -> None:
    filled = BAR_CHARACTERS * done // total
    end = "\n" if done == total else ""
    line = (
        f"\rmeasuring [{'#' * filled}{'.' * (BAR_CHARACTERS - filled)}] {done}/{total} {words:<24}"
    )
    sys.stderr.write(line + end)
    sys.stderr.flush()
