"""A callback for Lightning that logs geometry and responses through the loggers of its trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from modular_manifolds.integrations.geometry import GeometryMonitor, Schedule
from modular_manifolds.nn.composed import Weighted


class GeometryCallback(Callback):
    """Log the geometry of a module's weights; see `GeometryMonitor` for the metrics.

    The metrics go to every logger of the trainer at their own step, and to `trainer.callback_metrics`.

    Args:
        plan: the plan of the model, or a declared network.
        every: the number of optimiser steps between two logs of the geometry.
        batch: a batch for measuring responses; None for geometry only.
        measure_every: the number of steps between two measurements, by default ten times `every`. The first is after
            step 1.
        loss: as in `ModelPlan.measure`.
        probes: the number of backward passes of one measurement.
        each: whether to add separate metrics for each logical matrix.

    Raises:
        ArgumentError: as `GeometryMonitor`, or a number of steps is not above zero.
    """

    def __init__(
        self,
        plan: Weighted,
        *,
        every: int = 50,
        batch: Any = None,
        measure_every: int | None = None,
        loss: Callable[..., Tensor] | None = None,
        probes: int = 16,
        each: bool = False,
    ) -> None:
        self._monitor = GeometryMonitor(plan, batch, loss=loss, probes=probes, each=each)
        self._schedule = Schedule(self._monitor, every=every, measure_every=measure_every)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        optimizer = trainer.optimizers[0] if trainer.optimizers else None
        numbers = dict(self._schedule.numbers(trainer.global_step, optimizer))
        if not numbers:
            return
        # self.log alone follows the trainer's logging interval, and may drop metrics.
        pl_module.log_dict(numbers, logger=False, on_step=True)
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        return {"first": self._monitor.first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._monitor.first = dict(state_dict["first"])
