"""A run of some benchmarks, from settings to a report."""

from __future__ import annotations

import time
from collections.abc import Sequence

from modular_manifolds.errors import ArgumentError
from modular_manifolds_bench.bars import BENCHES
from modular_manifolds_bench.recordings import Recordings, Settings
from modular_manifolds_bench.report import Environment, Report, Row
from modular_manifolds_bench.timing import threads as thread_count


def run(settings: Settings, *, only: Sequence[str] = (), threads: int = 2) -> Report:
    """Run the benchmarks named in `only`, or all, with `threads` threads.

    Raises:
        ArgumentError: a name is unknown, or a number out of range.
        DataError: the images cannot be read.
    """
    for name in only:
        if name not in BENCHES:
            raise ArgumentError(
                "--only", f"must be one of {', '.join(BENCHES)}", repr(name), "Name one of them."
            )
    for name, count in (("rounds", settings.rounds), ("drift_steps", settings.drift_steps)):
        if count < 1:
            raise ArgumentError(name, "must be at least 1", repr(count), "Leave it out.")
    recordings = Recordings(settings)
    rows: list[Row] = []
    start = time.perf_counter()
    with thread_count(threads):
        if settings.data_path is not None:
            # Before the first training, so that a wrong path ends the run at once.
            _ = recordings.images
        for name, bench in BENCHES.items():
            if not only or name in only:
                rows.extend(bench(recordings))
    seconds = time.perf_counter() - start
    return Report(Environment.current(threads=threads), recordings.source, seconds, tuple(rows))
