"""The script that measures dealt-out solves runs its processes, and prints one row for each contender."""

from __future__ import annotations

import pytest
from measuring_scripts import lines_of


@pytest.mark.long
def test_two_processes_share_the_solves_of_one() -> None:
    sizes = ["--width", "32", "--heads", "2", "--layers", "2", "--rounds", "1"]
    lines = lines_of("ddp_solves.py", *sizes)
    assert lines[1].startswith("owner: 12 weights are solved once, by 2 processes")
    rows = ("2 processes, 1 thread each", "1 process, 2 threads", "1 process, 1 thread")
    for name in rows:
        (row,) = (line for line in lines if line.startswith(f"{name} "))
        solves, step = map(float, row.removeprefix(name).split()[:2])
        assert 0 < solves < step
    assert [line.partition(":")[0] for line in lines[-3:]] == [
        "cost of solves, a process of two / one process with one thread",
        "cost of solves, a process of two / one process on the same cores",
        "time of a step, two processes / one process on the same cores",
    ]
