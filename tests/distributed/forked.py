"""The folder of the results, and whether long tests run: told to the processes that `ranks` forks."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER, LONG = "CHECKS_FOLDER", "CHECKS_LONG"


def tell(folder: Path, *, with_long: bool) -> None:
    os.environ.update({FOLDER: str(folder), LONG: "yes" if with_long else "no"})


def results_folder() -> Path:
    return Path(os.environ[FOLDER])


def long_tests_run() -> bool:
    return os.environ[LONG] == "yes"
