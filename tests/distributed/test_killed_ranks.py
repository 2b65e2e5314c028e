"""A process of a run is killed, torchrun starts all again, and the run ends in the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def kill(forked: int, launched: int) -> None:
    script = str(Path(__file__).with_name("killed_ranks.py"))
    ran = subprocess.run(
        [sys.executable, script, str(forked), str(launched), "0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_run_whose_processes_are_killed_ends_in_the_bits_of_one_that_nobody_killed() -> None:
    """One process is killed at a random moment. `python killed_ranks.py 10 10 SEED` kills more."""
    kill(forked=1, launched=0)


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_run_may_be_killed_three_times() -> None:
    kill(forked=3, launched=0)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_torchrun_starts_the_processes_of_a_run_again() -> None:
    kill(forked=0, launched=1)
