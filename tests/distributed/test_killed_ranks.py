"""A process of a run is killed, torchrun starts all again, and the run ends in the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_a_run_whose_processes_are_killed_ends_in_the_bits_of_one_that_nobody_killed() -> None:
    """Four forked processes are killed, and one of torchrun. `python killed_ranks.py 10 10 SEED` takes longer."""
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed_ranks.py")), "4", "1", "0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
