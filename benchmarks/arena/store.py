"""Results on disk: one file for each run, written beside its place and renamed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from arena.result import Result
from arena.settings import Settings
from modular_manifolds.training.environment import Environment


@dataclass(frozen=True)
class Store:
    """A folder of results. Several processes may use it: a file is either absent or complete."""

    folder: Path

    def read(self, settings: Settings) -> Result | None:
        """The result of a run; None if it has not been run."""
        try:
            text = self._file(settings).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return Result.from_values(json.loads(text)["result"])

    def write(self, settings: Settings, result: Result) -> None:
        """Keep the result of a run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        values = {
            "settings": settings.as_json(),
            "result": result.values(),
            "environment": asdict(
                Environment.current(threads=torch.get_num_threads(), device=settings.device)
            ),
        }
        file = self._file(settings)
        beside = file.with_suffix(f".{os.getpid()}.part")
        beside.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        beside.replace(file)

    def _file(self, settings: Settings) -> Path:
        return self.folder / f"{settings.key}.json"
