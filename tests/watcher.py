"""An observer of training runs, which may ask them to stop."""

from __future__ import annotations

from modular_manifolds.training.loop import Trainer
from modular_manifolds.training.metrics import EpochMetrics, StepMetrics


class Watcher:
    """Remembers the metrics of a run, and asks to stop after a step."""

    def __init__(self, trainer: Trainer, stop_after: int | None = None) -> None:
        self.steps: list[StepMetrics] = []
        self.epochs: list[EpochMetrics] = []
        trainer.stop = lambda: stop_after is not None and len(self.steps) >= stop_after

    def on_step(self, metrics: StepMetrics) -> None:
        self.steps.append(metrics)

    def on_epoch(self, metrics: EpochMetrics) -> None:
        self.epochs.append(metrics)
