"""A sweep's folder: its run, one file for each finished point, and one file with all results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from modular_manifolds.errors import DataError
from modular_manifolds.specs import RunSpec
from modular_manifolds.specs.whole import remove_temporaries, write_whole
from modular_manifolds.training.environment import Environment
from modular_manifolds.training.folder import claim, lock
from modular_manifolds.training.sweep.outcome import Outcome
from modular_manifolds.training.sweep.plan import Point


@dataclass(frozen=True)
class Result:
    """A point and the outcome of its run."""

    point: Point
    outcome: Outcome

    def row(self) -> dict[str, Any]:
        """The entry in `sweep.json`."""
        point = self.point
        named = {"arm": point.arm.text, "size": list(point.size.assignments)}
        return {**named, "lr": point.lr, "seed": point.seed, **asdict(self.outcome)}


@dataclass(frozen=True)
class Results:
    """`run.yaml`, `runs/*.json`, `sweep.json` and `sweep.svg` of a sweep; every file is written atomically."""

    path: Path

    @property
    def run(self) -> Path:
        return self.path / "run.yaml"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def json(self) -> Path:
        return self.path / "sweep.json"

    @property
    def figure(self) -> Path:
        return self.path / "sweep.svg"

    def open(self, run: RunSpec) -> None:
        """Start a sweep of `run` in this folder, or continue one.

        Raises:
            DataError: the folder holds a sweep of another run or other files, or cannot be written.
        """
        if not self.run.is_file():
            self._begin(run)
        if (before := RunSpec.from_file(self.run)) != run:
            raise DataError(
                f"--out {self.path}",
                "must be a new folder or hold a sweep of the same run",
                f"another {', '.join(_differences(before, run))}",
                "Choose another folder, or take the change back.",
            )

    def _begin(self, run: RunSpec) -> None:
        try:
            claim(self.path, self.run.name, run.to_yaml())
        except FileExistsError:
            # Another process may have started a sweep here; then `open` compares the runs.
            if not self.run.is_file():
                raise DataError(
                    "--out",
                    "must be a new folder or hold a sweep",
                    str(self.path),
                    "Choose another.",
                ) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """A context with a lock on the folder; temporary files of killed processes are removed.

        Raises:
            DataError: another process works there, or the folder cannot be written.
        """
        with lock(self.run, argument="--out"):
            for folder in (self.path, self.runs):
                remove_temporaries(folder)
            yield

    def remove_if_empty_(self) -> None:
        """Remove the folder of a sweep without a result: its run failed, and would refuse the one that is mended."""
        with suppress(OSError):
            self.runs.rmdir()
        if not self.runs.exists():
            self.run.unlink(missing_ok=True)
            with suppress(OSError):
                self.path.rmdir()

    def find(self, spec: RunSpec) -> Outcome | None:
        """The outcome of this run; None if it has not finished."""
        file = self._file(spec)
        if not file.is_file():
            return None
        try:
            return Outcome.from_json(json.loads(file.read_text(encoding="utf-8"))["outcome"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                str(file), "must be what a sweep wrote", type(error).__name__, "Delete it."
            ) from None

    def keep(self, spec: RunSpec, point: Point, outcome: Outcome) -> None:
        """Store the outcome of a run."""
        content = {"point": str(point), "outcome": asdict(outcome)}
        self.runs.mkdir(exist_ok=True)
        write_whole(self._file(spec), json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write(self, results: Iterable[Result], environment: Environment) -> None:
        """Write all results in one file."""
        content = {
            "environment": asdict(environment),
            "runs": [result.row() for result in results],
        }
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        write_whole(self.json, text + "\n")

    def _file(self, spec: RunSpec) -> Path:
        # A hash of all settings that influence the result; the size limits do not.
        decides = spec.model_dump_json(indent=2, exclude={"max_modules", "max_weights"}) + "\n"
        return self.runs / f"{sha256(decides.encode()).hexdigest()[:16]}.json"


def _differences(before: RunSpec, after: RunSpec) -> list[str]:
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    return [key for key in old if old[key] != new[key]]
