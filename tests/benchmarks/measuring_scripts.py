"""Scripts of benchmarks, run as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"


def lines_of(script: str, *arguments: str) -> list[str]:
    """The lines that a script prints; it must succeed."""
    ran = subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()
