"""Small data: the first few digits, and a text in a small language."""

from __future__ import annotations

from pathlib import Path

import pytest
from blank_pictures import leave_out_pictures
from prose import prose

from modular_manifolds.specs.data import TextSpec
from modular_manifolds.training import load_data
from modular_manifolds.training.data import DataSet
from modular_manifolds.training.split import Split
from modular_manifolds.training.text import Text, read_text


@pytest.fixture(scope="module")
def data() -> DataSet:
    """The first few digits: five steps an epoch."""
    whole = load_data("digits")
    return DataSet(
        whole.spec,
        Split(whole.train.images[:150], whole.train.labels[:150]),
        Split(whole.test.images[:50], whole.test.labels[:50]),
        whole.classes,
    )


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at other things than the pictures of a report."""
    leave_out_pictures(monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sea.txt"
    path.write_text(prose(), encoding="utf-8")
    return path


@pytest.fixture
def text(file: Path) -> Text:
    return read_text(TextSpec(name="text", path=str(file), context=16))
