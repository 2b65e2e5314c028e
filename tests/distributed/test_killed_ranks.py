"""A process of a run is killed, torchrun starts all again, and the run ends in the same bits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ranks import folder_of_results, results

CHECKS = "killed_ranks"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_results(request, tmp_path_factory)


def test_a_run_whose_processes_are_killed_ends_in_the_bits_of_one_that_nobody_killed(
    folder: Path,
) -> None:
    """One process is killed at a random moment. `python killed_ranks.py 10 10 SEED` kills more."""
    (moments,) = results(folder, 0, "forked_once")
    assert len(moments) == 1


@pytest.mark.long
def test_a_run_may_be_killed_three_times(folder: Path) -> None:
    (moments,) = results(folder, 0, "forked_three_times")
    assert len(moments) == 3


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_torchrun_starts_the_processes_of_a_run_again(folder: Path) -> None:
    (moments,) = results(folder, 0, "launched_once")
    assert len(moments) == 1
