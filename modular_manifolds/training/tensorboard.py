"""The metrics of a run as event files for TensorBoard."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from modular_manifolds.errors import SpecError

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

    from modular_manifolds.training.metrics import EpochMetrics, Observer, StepMetrics


def check_tensorboard(wanted: bool) -> None:
    """Refuse a run with TensorBoard if it is not installed.

    Raises:
        SpecError: the run wants TensorBoard, and it is not installed.
    """
    if wanted and importlib.util.find_spec("tensorboard") is None:
        raise SpecError(
            "tensorboard",
            "needs the library tensorboard",
            "no such library",
            "Run: pip install 'modular-manifolds[tensorboard]', or leave tensorboard out.",
        )


class Recorder:
    """Writes metrics as scalars by step, and forwards them to another observer."""

    def __init__(self, observer: Observer, writer: SummaryWriter) -> None:
        self._observer, self._writer = observer, writer
        self._step = 0

    def on_step(self, metrics: StepMetrics) -> None:
        self._step = metrics.step
        for name in ("loss", "accuracy", "lr"):
            self._writer.add_scalar(f"step/{name}", getattr(metrics, name), metrics.step)
        self._observer.on_step(metrics)

    def on_epoch(self, metrics: EpochMetrics) -> None:
        for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            self._writer.add_scalar(f"epoch/{name}", getattr(metrics, name), self._step)
        for path, weight in metrics.weights.items():
            for name, value in asdict(weight).items():
                if value is not None:
                    self._writer.add_scalar(f"{path}/{name}", value, self._step)
        self._writer.flush()
        self._observer.on_epoch(metrics)


@contextmanager
def record_events(observer: Observer, folder: Path, *, after: int) -> Iterator[Recorder]:
    """A context with an observer that also writes to `folder`; existing events after step `after` are replaced."""
    check_tensorboard(True)
    from torch.utils.tensorboard.writer import SummaryWriter

    writer = SummaryWriter(str(folder), purge_step=after + 1 if after else None)
    try:
        yield Recorder(observer, writer)
    finally:
        writer.close()
