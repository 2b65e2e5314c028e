"""Runs of a few steps, with watchers that stop them or kill them."""

from __future__ import annotations

from pathlib import Path

import modular_manifolds as mm
from modular_manifolds.training import start
from modular_manifolds.training.data import DataSet
from modular_manifolds.training.loop import Trainer
from modular_manifolds.training.metrics import EpochMetrics, StepMetrics
from modular_manifolds.training.run_directory import begin

OPTIMIZERS = ("steepest-descent", "adamw", "muon")


class Watcher:
    """Remembers what it saw and asks to stop after a step."""

    def __init__(self, trainer: Trainer, stop_after: int | None = None) -> None:
        self.steps: list[StepMetrics] = []
        self.epochs: list[EpochMetrics] = []
        trainer.stop = lambda: stop_after is not None and len(self.steps) >= stop_after

    def on_step(self, metrics: StepMetrics) -> None:
        self.steps.append(metrics)

    def on_epoch(self, metrics: EpochMetrics) -> None:
        self.epochs.append(metrics)


class KilledError(Exception):
    """Stands for a run that ended without a chance to write anything."""


class Killer(Watcher):
    def __init__(self, trainer: Trainer, after: int) -> None:
        super().__init__(trainer)
        self.after = after

    def on_step(self, metrics: StepMetrics) -> None:
        super().on_step(metrics)
        if len(self.steps) == self.after:
            raise KilledError


def spec(optimizer: str = "steepest-descent", *more: str) -> mm.RunSpec:
    changes = [f"optimizer.name={optimizer}", "epochs=3", "batch_size=32", *more]
    return mm.RunSpec().override(changes).resolved()


def train(
    path: Path, data: DataSet, run: mm.RunSpec, stop_after: int | None = None
) -> tuple[Trainer, Watcher]:
    trainer = start(run, data, begin(run, path))
    watcher = Watcher(trainer, stop_after)
    trainer.run(watcher)
    return trainer, watcher
