"""Each test of the command line has a current folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs are written below the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
