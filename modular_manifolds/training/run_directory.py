"""A run directory: what lies in it, and how it is begun, opened and kept whole."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from modular_manifolds.errors import CheckpointError, DataError
from modular_manifolds.specs import RunSpec
from modular_manifolds.specs.whole import flush, remove_temporaries, write_whole
from modular_manifolds.training.files import as_json
from modular_manifolds.training.folder import claim, held


@dataclass(frozen=True)
class RunDirectory:
    """`run.yaml`, `metrics.jsonl`, `initial.safetensors`, `checkpoint.safetensors`, `report.html`."""

    path: Path

    @property
    def run(self) -> Path:
        return self.path / "run.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def initial(self) -> Path:
        """The network before the first step."""
        return self.path / "initial.safetensors"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    @property
    def pictures(self) -> Path:
        """The report's pictures, each a file."""
        return self.path / "pictures"

    @property
    def tensorboard(self) -> Path:
        """The event files, if the run asks for them."""
        return self.path / "tensorboard"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def sample(self) -> Path:
        """The text that the network writes, if it learned from text."""
        return self.path / "sample.txt"

    @property
    def is_unstarted(self) -> bool:
        """Whether the run was killed before its first checkpoint, so that it starts from its beginning."""
        # A checkpoint comes before the first metrics: if only the checkpoint is missing, it was lost.
        return not self.checkpoint.exists() and not self.metrics.exists()

    def held(self, argument: str) -> AbstractContextManager[None]:
        """Keep other processes out of the folder while inside; `argument` is how the caller named it.

        Raises:
            DataError: another process works there, or the folder cannot be written.
        """
        return held(self.run, argument=argument)

    def read_run(self) -> RunSpec:
        """The run that this directory belongs to.

        Raises:
            CheckpointError: there is none.
            SpecError: it is damaged or of another version.
        """
        if not self.run.is_file():
            raise CheckpointError(
                str(self.path),
                "must be a run directory",
                "no run.yaml in it",
                "Pass a folder that `modular-manifolds train` made.",
            )
        return RunSpec.from_file(self.run)

    def read_metrics(self, *, upto: int | None = None) -> list[dict[str, Any]]:
        """The metrics of all steps, or of the first `upto`; a last line cut short is left out."""
        if not self.metrics.is_file():
            return []
        rows: list[dict[str, Any]] = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            if upto is not None and row["step"] > upto:
                break
            rows.append(row)
        return rows

    def cut_metrics_(self, step: int) -> None:
        """Drop what was written after `step`, so that a resumed run writes it again, once."""
        rows = self.read_metrics(upto=step)
        write_whole(self.metrics, "".join(as_json(row) + "\n" for row in rows))

    def flush_metrics(self) -> None:
        """Wait until the metrics are on the disk: a checkpoint may not outlive the lines before it."""
        if self.metrics.is_file():
            flush(self.metrics)

    def remove_temporaries_(self) -> None:
        """Remove the temporary files that a killed process left; no other process may work here."""
        for folder in (self.path, self.pictures):
            remove_temporaries(folder)

    def append_metrics_(self, row: Mapping[str, Any]) -> None:
        """Add one line; numbers that JSON does not know become null."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(as_json(row) + "\n")


def begin(spec: RunSpec, out: Path | None) -> RunDirectory:
    """A new, empty run directory with its `run.yaml`: `out`, or one named after the run and the time.

    Raises:
        DataError: `out` exists and is not empty, or cannot be made.
    """
    for path in _names(spec) if out is None else [out]:
        try:
            claim(path, RunDirectory(path).run.name, spec.to_yaml())
        except FileExistsError:
            # Another run has this folder, maybe since a moment ago.
            continue
        return RunDirectory(path)
    assert out is not None, "there is always one more name"
    remedy = "Choose another."
    if RunDirectory(out).run.is_file():
        remedy = f"Choose another, or go on with `modular-manifolds train --resume {out}`."
    raise DataError("--out", "must be a new or an empty folder", str(out), remedy)


def _names(spec: RunSpec) -> Iterator[Path]:
    """Folders named after the run and the time, the first of a second without a number."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    name = f"{spec.data.name}-{spec.optimizer.name}-{stamp}"
    yield Path("runs") / name
    for number in itertools.count(2):
        yield Path("runs") / f"{name}-{number}"
