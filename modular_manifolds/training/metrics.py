"""The numbers of a run, and the observers that read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from modular_manifolds.training.health import WeightHealth


@dataclass(frozen=True)
class StepMetrics:
    """One step, counted from 1: loss and accuracy on its batch, before the step."""

    step: int
    epoch: int
    loss: float
    accuracy: float
    lr: float


@dataclass(frozen=True)
class Measured:
    """Mean loss and accuracy over all labels of a part."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class EpochMetrics:
    """One evaluation, in the epoch `epoch`, counted from 1: losses, accuracies, and the health of each weight."""

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    weights: dict[str, WeightHealth]


class Observer(Protocol):
    """Callbacks for the metrics of a run; they read, and change nothing."""

    def on_step(self, metrics: StepMetrics) -> None: ...

    def on_epoch(self, metrics: EpochMetrics) -> None: ...
