"""The script that measures overlap runs its two processes, and prints a row for each contender."""

from __future__ import annotations

import pytest
from measuring_scripts import lines_of


@pytest.mark.long
def test_both_contenders_are_timed() -> None:
    sizes = ["--width", "32", "--heads", "2", "--layers", "2", "--tokens", "128", "--rounds", "1"]
    lines = lines_of("overlap.py", *sizes, "--megabytes", "0.01")
    assert "left before the last step" in lines[0]
    for name in ("all in the step", "overlap  "):
        (row,) = (line for line in lines if line.startswith(name))
        assert all(float(each) >= 0 for each in row.split()[-4:])
    assert lines[-1].startswith("overlap / all in the step, both, processor: ")
