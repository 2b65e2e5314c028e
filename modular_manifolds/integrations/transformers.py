"""A callback for Hugging Face's `Trainer` that logs geometry and responses through `Trainer.log`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from modular_manifolds.integrations.geometry import GeometryMonitor, Schedule
from modular_manifolds.nn.composed import Weighted


class GeometryCallback(TrainerCallback):
    """Log the geometry of a model's weights; see `GeometryMonitor` for the metrics.

    The metrics go to the trainer's reporters, such as TensorBoard or W&B, and to `trainer.state.log_history`. Add it by
    `trainer.add_callback(GeometryCallback(plan, trainer))`.

    Args:
        plan: the plan of the model, or a declared network.
        trainer: the trainer, whose `log` is called; Hugging Face does not pass it to callbacks.
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
        trainer: Trainer,
        *,
        every: int = 50,
        batch: Any = None,
        measure_every: int | None = None,
        loss: Callable[..., Tensor] | None = None,
        probes: int = 16,
        each: bool = False,
    ) -> None:
        self._trainer = trainer
        monitor = GeometryMonitor(plan, batch, loss=loss, probes=probes, each=each)
        self._schedule = Schedule(monitor, every=every, measure_every=measure_every)

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,
    ) -> None:
        numbers = self._schedule.numbers(state.global_step, kwargs.get("optimizer"))
        if numbers:
            self._trainer.log(dict(numbers))
