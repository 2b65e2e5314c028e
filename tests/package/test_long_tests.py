"""The mark `long`: a plain run leaves these tests out and says so, and other runs have them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest
from long_tests import mostly_long

@pytest.mark.parametrize("size", mostly_long([(1, 2), (3, 4), (5, 6)], usual=2))
def test_size(size):
    assert len(size) == 2

@pytest.mark.parametrize(("a", "b"), mostly_long([(1, 2), (3, 4)], usual=lambda each: each[0] == 3, several=True))
def test_pair(a, b):
    assert a < b
"""
SETTINGS = "[pytest]\nmarkers = long: takes seconds\n"


def report(folder: Path, *arguments: str) -> str:
    """The end of a run of the tests above, in a folder of its own and without the settings of this project."""
    (folder / "test_few.py").write_text(TESTS)
    (folder / "pytest.ini").write_text(SETTINGS)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "long_tests", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_a_plain_run_by_workers_leaves_them_out_and_says_so(tmp_path: Path) -> None:
    found = report(tmp_path, "-p", "xdist", "-n", "2")
    assert "2 long tests were left out. Run every test: pytest --all\n" in found
    assert "\n3 passed" in found


@pytest.mark.parametrize(
    ("argument", "passed"), [("--all", 5), ("-mlong", 2), ("test_few.py::test_pair[1-2]", 1)]
)
def test_a_run_that_asks_for_them_has_them(tmp_path: Path, argument: str, passed: int) -> None:
    found = report(tmp_path, argument)
    assert f"\n{passed} passed" in found
    assert "left out" not in found
