"""The installed program in a process of its own, and options for a short run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
