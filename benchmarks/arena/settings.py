"""The settings of one run, which name its file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Final

VERSION: Final = 2
"""The number of the arena's rules; results of another number are not mixed with these."""


@dataclass(frozen=True)
class Settings:
    """Everything that a run's numbers depend on, besides the machine.

    Args:
        task: the name of the task.
        arm: the name of the arm.
        values: the learning rates, then the scale of an arm on a manifold.
        width: the model's width.
        depth: the model's depth.
        steps: the number of steps.
        batch: the number of examples of a step.
        seed: the seed of initial weights and of batches.
        device: the kind of device that trains.
        version: the number of the arena's rules.
    """

    task: str
    arm: str
    values: tuple[float, ...]
    width: int
    depth: int
    steps: int
    batch: int
    seed: int
    device: str = "cpu"
    version: int = VERSION

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return {**asdict(self), "values": list(self.values)}

    @property
    def key(self) -> str:
        """The name of the run's file: a hash of the settings."""
        text = json.dumps(self.as_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]
