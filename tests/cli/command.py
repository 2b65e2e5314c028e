"""The installed program in a process of its own, and options for a short run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

QUICK = ["--set", "epochs=1", "--set", "batch_size=256"]


def program(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """The installed program in a process of its own."""
    code = "import sys; from modular_manifolds.cli.main import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


FIGURES = ("learning", "singular_values", "split", "bounds", "certified")
"""The functions that draw the pictures of a report."""


def leave_out_pictures(patch: pytest.MonkeyPatch) -> None:
    """Reports and sweeps with blank pictures: to draw them takes most of the time of a short run.

    Those of a report are together larger than 100,000 characters, and each alone is smaller.
    """
    blank = f"<?xml version='1.0'?><svg>{30_000 * ' '}</svg>"
    for name in FIGURES:
        patch.setattr(f"modular_manifolds.training.figures.{name}", lambda *_: None)
    patch.setattr("modular_manifolds.training.figures.as_svg", lambda _: blank)
    patch.setattr("modular_manifolds.training.sweep.figure.transfer", lambda _: blank)
