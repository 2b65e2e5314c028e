"""A run directory: its files, and its creation, locking and cleaning."""

from __future__ import annotations

import itertools
import json
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from modular_manifolds.errors import ArgumentError, CheckpointError, DataError
from modular_manifolds.specs import RunSpec
from modular_manifolds.specs.whole import flush, remove_temporaries, write_whole
from modular_manifolds.training.files import as_json
from modular_manifolds.training.folder import claim, lock


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
        """The folder with the report's pictures."""
        return self.path / "pictures"

    @property
    def tensorboard(self) -> Path:
        """The folder with TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def sample(self) -> Path:
        """The generated text of a network that was trained on text."""
        return self.path / "sample.txt"

    @property
    def is_unstarted(self) -> bool:
        """Whether the run was killed before its first checkpoint, so that it starts from its beginning."""
        # The first checkpoint comes before the first metrics. Metrics without a checkpoint mean that it was lost.
        return not self.checkpoint.exists() and not self.metrics.exists()

    def lock(self, argument: str) -> AbstractContextManager[None]:
        """A context with a lock on the folder; `argument` is the caller's name of it, for errors.

        Raises:
            DataError: another process works there, or the folder cannot be written.
        """
        return lock(self.run, argument=argument)

    def read_run(self) -> RunSpec:
        """The run that this directory belongs to.

        Raises:
            CheckpointError: there is none, or it belongs to a sweep.
            SpecError: it is damaged or of another version.
        """
        if not self.run.is_file():
            raise CheckpointError(
                str(self.path),
                "must be a run directory",
                "no run.yaml in it",
                "Pass a folder that `modular-manifolds train` made.",
            )
        found = RunSpec.from_file(self.run)
        if found.network is None:
            # A sweep has a run.yaml too.
            raise CheckpointError(
                str(self.path),
                "must be a run directory",
                "a run.yaml without a network",
                "Pass a folder that `modular-manifolds train` made.",
            )
        return found

    def read_metrics(self, *, upto: int | None = None) -> list[dict[str, Any]]:
        """The metrics of all steps, or of the first `upto`. An incomplete last line of a killed process is ignored.

        Raises:
            CheckpointError: another line is damaged.
        """
        if not self.metrics.is_file():
            return []
        lines = self.metrics.read_bytes().splitlines()
        rows = [self._metrics_row(line, number) for number, line in enumerate(lines[:-1], start=1)]
        with suppress(CheckpointError):
            rows += [self._metrics_row(line, len(lines)) for line in lines[-1:]]
        return [row for row in rows if upto is None or row["step"] <= upto]

    def _metrics_row(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
            if isinstance(row["step"], int):
                return row
        except (ValueError, TypeError, KeyError):
            pass
        raise CheckpointError(
            f"{self.metrics}: line {number}",
            "must be a JSON object with a step",
            reprlib.repr(line),
            "Put back the file as the run wrote it, or delete this line.",
        )

    def cut_metrics_(self, step: int) -> None:
        """Remove metrics after `step`, because a resumed run writes them again.

        Raises:
            CheckpointError: a line is damaged, or an earlier step has no line.
        """
        rows = self.read_metrics(upto=step)
        known = {row["step"] for row in rows if "loss" in row}
        missing = next((each for each in range(1, step + 1) if each not in known), None)
        if missing is not None:
            raise CheckpointError(
                str(self.metrics),
                f"must have a line for each of the {step} steps of checkpoint.safetensors",
                f"none for step {missing}",
                "Put back the file as the run wrote it, or begin the run again in a new folder.",
            )
        write_whole(self.metrics, "".join(as_json(row) + "\n" for row in rows))

    def flush_metrics(self) -> None:
        """Wait until the metrics are on the disk, because a checkpoint must not be newer than its metrics."""
        if self.metrics.is_file():
            flush(self.metrics)

    def remove_temporaries_(self) -> None:
        """Remove temporary files of killed processes; no other process may work here."""
        for folder in (self.path, self.pictures):
            remove_temporaries(folder)

    def remove_unstarted_(self) -> None:
        """Remove the folder of a run that could not start, because it has no checkpoint."""
        if self.is_unstarted:
            for file in (self.initial, self.run):
                file.unlink(missing_ok=True)
            with suppress(OSError):
                self.path.rmdir()

    def append_metrics_(self, row: Mapping[str, Any]) -> None:
        """Append one line; NaN and infinity become null."""
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
            # Another run has just taken this folder.
            continue
        return RunDirectory(path)
    assert out is not None, "there is always one more name"
    remedy = "Choose another."
    with suppress(ArgumentError):
        RunDirectory(out).read_run()
        remedy = f"Choose another, or go on with `modular-manifolds train --resume {out}`."
    raise DataError("--out", "must be a new or an empty folder", str(out), remedy)


def begin_or_find(spec: RunSpec, out: Path) -> tuple[RunDirectory, bool]:
    """The run in `out`, and whether it is new: a launcher that starts a command again finds its run there.

    Raises:
        DataError: `out` holds another run or other files, or cannot be made.
    """
    directory = RunDirectory(out)
    if not directory.run.is_file():
        return begin(spec, out), True
    if directory.read_run().to_yaml() != spec.to_yaml():
        raise DataError(
            "--out",
            "must hold this run, or be a new or an empty folder, with torchrun --max-restarts",
            f"another run in {out}",
            "Choose another folder.",
        )
    return directory, False


def _names(spec: RunSpec) -> Iterator[Path]:
    """Candidate folders, named after the run and the time, from the second one on with a number."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    name = f"{spec.data.name}-{spec.optimizer.name}-{stamp}"
    yield Path("runs") / name
    for number in itertools.count(2):
        yield Path("runs") / f"{name}-{number}"
