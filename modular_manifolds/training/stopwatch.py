"""The time that the phases of a run take, for its user to read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds by the name of a phase."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the time inside as `phase`."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begun
            self._seconds[phase] = self._seconds.get(phase, 0.0) + spent

    def __str__(self) -> str:
        """`12.3 s: steps 9.8 s, evaluations 2.5 s`, the longest phase first."""
        longest_first = sorted(self._seconds.items(), key=lambda each: -each[1])
        phases = ", ".join(f"{name} {spent:.1f} s" for name, spent in longest_first)
        return f"{sum(self._seconds.values()):.1f} s: {phases}"
