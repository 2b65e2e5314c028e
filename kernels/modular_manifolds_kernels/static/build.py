"""Rows of configurations, each compiled in another process under a time limit."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import modular_manifolds_kernels
from modular_manifolds_kernels.configuration import Configuration
from modular_manifolds_kernels.static.compile import ENVIRONMENT
from modular_manifolds_kernels.static.row import Row, failed

LIMIT: Final = 60.0
"""Seconds for one compilation. Most take one or two; some that unroll would take minutes."""

RAISED: Final = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b")
LONGEST: Final = 400


class Compiler:
    """A process of its own that compiles, and is replaced when a compilation fails or takes too long.

    A process, because the compiler may crash, may never end, and reads its settings from the environment.
    """

    def __init__(self, *, limit: float = LIMIT) -> None:
        self.limit = limit
        self._process: subprocess.Popen[str] | None = None
        self._open = ExitStack()
        self._errors: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def row(self, configuration: Configuration) -> Row:
        """The row of one configuration; a row with a `failure` where there is no code."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asdict(configuration)) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], self.limit)
        if not ready:
            self._stop()
            return failed(configuration, f"was not compiled within {self.limit:g} s")
        line = process.stdout.readline()
        if line:
            return Row.read(json.loads(line))
        status = process.wait()
        said = self._said()
        self._stop()
        return failed(configuration, said or f"the compiler ended with status {status}")

    def _start(self) -> subprocess.Popen[str]:
        packages = str(Path(modular_manifolds_kernels.__file__).parents[1])
        path = os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH"))))
        folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
        self._errors = self._open.enter_context((folder / "errors").open("w+", encoding="utf-8"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "modular_manifolds_kernels.static.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
            # A group of its own: the compiler starts ptxas, which must end with it.
            start_new_session=True,
        )
        return self._process

    def _said(self) -> str:
        """The exception of the traceback that the process wrote to its errors, on one line."""
        if self._errors is None:
            return ""
        self._errors.seek(0)
        lines = self._errors.read().splitlines()
        # The exception's own lines: from the last one that starts at the margin with a name and a colon.
        starts = [i for i, line in enumerate(lines) if RAISED.match(line)]
        said = " ".join(" ".join(lines[starts[-1] :]).split()) if starts else "".join(lines[-1:])
        return said if len(said) <= LONGEST else f"{said[: LONGEST // 2]} … {said[-LONGEST // 2 :]}"

    def _stop(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            self._process = None
        self._open.close()
        self._errors = None


def build(
    configurations: Iterable[Configuration],
    *,
    limit: float = LIMIT,
    watch: Callable[[Row], None] | None = None,
) -> list[Row]:
    """The rows of configurations, in order, compiled one after another in one process."""
    rows = []
    with Compiler(limit=limit) as compiler:
        for configuration in configurations:
            rows.append(compiler.row(configuration))
            if watch is not None:
                watch(rows[-1])
    return rows
