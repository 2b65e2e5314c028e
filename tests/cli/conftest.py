"""Each test of the command line has a current folder of its own, and may leave out pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from blank_pictures import leave_out_pictures

from modular_manifolds.cli.main import main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs are written below the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at other things than the pictures of a report."""
    leave_out_pictures(monkeypatch)


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Runs a command that a caller's mistake must end with code 2 and one line, which is returned."""

    def run(arguments: list[str]) -> str:
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        return captured.err

    return run
