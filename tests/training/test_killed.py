"""Runs and sweeps that are killed at any moment go on to the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_what_is_killed_before_any_of_its_writes_goes_on_to_the_same_bits() -> None:
    """Takes some seconds: a process of its own is ended with no chance to clean up, once for each write."""
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed.py"))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    runs, sweeps = map(int, ran.stdout.split())
    # Folder, run file, first network, three checkpoints, and metrics of four steps and two epochs.
    assert runs > 20
    assert sweeps > 10
