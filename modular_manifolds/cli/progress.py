"""The live progress bar of a run, or one line for each evaluation without a terminal."""

from __future__ import annotations

import math
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from modular_manifolds.training.metrics import EpochMetrics, StepMetrics
from modular_manifolds.training.session import Session


class Progress:
    """Watches a run: loss, accuracy and learning rate of the last step, those on the test part at the last evaluation."""

    def __init__(self, console: Console, session: Session) -> None:
        self._console = console
        self._session = session
        self._epochs = math.ceil(session.steps / session.steps_per_epoch)
        self._last: StepMetrics | None = None
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(
            "training", total=session.steps, completed=session.finished, numbers=""
        )
        self._test = ""

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del kind, error, trace
        self._bar.stop()

    def on_step(self, metrics: StepMetrics) -> None:
        self._last = metrics
        numbers = (
            f"loss {metrics.loss:.3f}  acc {metrics.accuracy:.1%}  lr {metrics.lr:.3g}{self._test}"
        )
        self._bar.update(self._task, completed=metrics.step, numbers=numbers)

    def on_epoch(self, metrics: EpochMetrics) -> None:
        self._test = f"  test {metrics.test_loss:.3f} {metrics.test_accuracy:.1%}"
        if not self._console.is_terminal and self._last is not None:
            session = self._session
            place = (
                f"epoch {metrics.epoch}/{self._epochs}"
                if session.epoch_done
                else f"step {session.finished}/{session.steps}"
            )
            self._console.print(
                f"{place}  lr {self._last.lr:.3g}  "
                f"loss {metrics.train_loss:.4f} train, {metrics.test_loss:.4f} test  "
                f"accuracy {metrics.train_accuracy:.1%} train, {metrics.test_accuracy:.1%} test",
                soft_wrap=True,
            )
