"""The folder of the results, and the kinds of tests that run: told to the processes that `ranks` forks."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER, EXTENT = "CHECKS_FOLDER", "CHECKS_EXTENT"


def tell(folder: Path, extent: str) -> None:
    """Tell the folder, and which tests read the results: `plain` ones, `long` ones or `all`."""
    os.environ.update({FOLDER: str(folder), EXTENT: extent})


def results_folder() -> Path:
    return Path(os.environ[FOLDER])


def long_tests_run() -> bool:
    return os.environ[EXTENT] != "plain"


def plain_tests_run() -> bool:
    return os.environ[EXTENT] != "long"
