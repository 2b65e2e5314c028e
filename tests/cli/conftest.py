"""Each test of the command line has a current folder of its own, and may leave out pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from blank_pictures import leave_out_pictures


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs are written below the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at other things than the pictures of a report."""
    leave_out_pictures(monkeypatch)
