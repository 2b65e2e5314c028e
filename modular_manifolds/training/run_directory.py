"""A run directory: what lies in it, and how it is begun, opened and kept whole."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from modular_manifolds.errors import CheckpointError, DataError
from modular_manifolds.specs import RunSpec
from modular_manifolds.training.device import device_of
from modular_manifolds.training.tensorboard import check_tensorboard


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
        """The event files, where the run asks for them."""
        return self.path / "tensorboard"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def sample(self) -> Path:
        """What the network writes, where it learned from text."""
        return self.path / "sample.txt"

    def read_run(self) -> RunSpec:
        """The run that this directory belongs to.

        Raises:
            CheckpointError: there is none. SpecError: it is damaged or of another version.
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

    def append_metrics_(self, row: Mapping[str, Any]) -> None:
        """Add one line; numbers that JSON does not know become null."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(as_json(row) + "\n")


def begin(spec: RunSpec, out: Path | None) -> RunDirectory:
    """A new, empty run directory with its `run.yaml`: `out`, or one named after the run and the time.

    Raises:
        DataError: `out` exists and is not empty, or cannot be made. SpecError: the run asks for
        TensorBoard or a device that is not there.
    """
    check_tensorboard(spec.tensorboard)
    device_of(spec.device)
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    path = out or Path("runs") / f"{spec.data.name}-{spec.optimizer.name}-{stamp}"
    number = 2
    while out is None and path.exists():
        path = path.with_name(f"{spec.data.name}-{spec.optimizer.name}-{stamp}-{number}")
        number += 1
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        remedy = "Choose another."
        if RunDirectory(path).run.is_file():
            remedy = f"Choose another, or go on with `modular-manifolds train --resume {path}`."
        raise DataError("--out", "must be a new or an empty folder", str(path), remedy)
    try:
        path.mkdir(parents=True, exist_ok=True)
        directory = RunDirectory(path)
        write_whole(directory.run, spec.to_yaml())
    except OSError as error:
        raise DataError(
            "--out", "must be a folder that can be written", str(path), f"{error.strerror}."
        ) from None
    return directory


def write_whole(path: Path, text: str) -> None:
    """Write a text file beside `path` and rename it: `path` holds the old text or the new."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def as_json(value: object, *, indent: int | None = None) -> str:
    """Data as JSON text; NaN and infinity, which JSON does not know, become null."""
    return json.dumps(_known(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _known(value: object) -> object:
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {key: _known(each) for key, each in value.items()}
        case list() | tuple():
            return [_known(each) for each in value]
        case _:
            return value
