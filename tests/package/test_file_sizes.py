"""Test files have one subject each: none is above 300 lines, and no two share a name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]
MAX_LINES = 300
TABLES: tuple[str, ...] = ()
"""Files that may be longer, because they hold one table: their paths below tests/."""


def files() -> list[Path]:
    return sorted(TESTS.rglob("*.py"))


def test_no_file_is_too_long() -> None:
    lines = {
        path.relative_to(TESTS).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in files()
    }
    assert len(lines) > 150
    long = {name: count for name, count in lines.items() if count > MAX_LINES}
    assert set(long) <= set(TABLES), f"split by subject: {long}"
    assert set(TABLES) <= set(long), "a table that is short needs no entry"


def test_names_are_unique() -> None:
    """Folders of tests are no packages: a module of a name hides the others."""
    names = Counter(path.name for path in files() if path.name != "conftest.py")
    assert not [name for name, count in names.items() if count > 1]
