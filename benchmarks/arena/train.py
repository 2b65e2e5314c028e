"""One run: train a model from its seed, and measure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import fmean, median

import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from arena.arms import ARMS
from arena.conditioning import conditioning
from arena.data import Batch, Data, Sources
from arena.result import Result
from arena.settings import Settings
from arena.tasks import TASKS
from modular_manifolds.errors import NonFiniteError

CURVE_POINTS = 20
"""The number of losses of a curve."""

CURVE_BATCHES = 2
"""The number of validation batches behind each loss of a curve."""

WARM_UP_SHARE = 0.05
"""The share of the steps in which the rate rises."""


def cosine(steps: int) -> Callable[[int], float]:
    """A factor on the rate: it rises, then falls to zero along half a cosine."""
    rise = max(1, round(WARM_UP_SHARE * steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 + 0.5 * math.cos(math.pi * (step - rise) / max(1, steps - rise))

    return factor


def loss_of(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The cross entropy of a batch, in nats."""
    inputs, labels = batch
    return functional.cross_entropy(model(inputs).flatten(0, -2), labels.flatten())


@torch.no_grad()
def validate(model: nn.Module, batches: Sequence[Batch]) -> float:
    """The mean loss of all labels of these batches, in evaluation mode."""
    model.eval()
    sums = [float(loss_of(model, batch)) * batch[1].numel() for batch in batches]
    model.train()
    return sum(sums) / sum(labels.numel() for _, labels in batches)


def train(settings: Settings, sources: Sources) -> Result:
    """Train as the settings say. A loss or a gradient that is not finite ends the run without a loss."""
    task, device = TASKS[settings.task], torch.device(settings.device)
    data = task.data(sources)
    torch.manual_seed(settings.seed)
    model = task.build(data.classes, settings.width, settings.depth).to(device)
    try:
        return _trained(model, data, settings, device)
    except NonFiniteError:
        return Result(None)


def _trained(model: nn.Module, data: Data, settings: Settings, device: torch.device) -> Result:
    generator = torch.Generator().manual_seed(settings.seed)

    def draw() -> Batch:
        inputs, labels = data.draw(generator, settings.batch)
        return inputs.to(device), labels.to(device)

    valid = [(inputs.to(device), labels.to(device)) for inputs, labels in data.valid]
    build = ARMS[settings.arm].build
    optimizers = build(model, draw()[0], settings.values, settings.seed)
    schedules = [LambdaLR(each, cosine(settings.steps)) for each in optimizers]
    interval = max(1, settings.steps // CURVE_POINTS)
    watch = _Stopwatch(device)
    losses: list[float] = []
    curve: list[tuple[int, float]] = []
    for step in range(1, settings.steps + 1):
        batch = draw()
        watch.start()
        model.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        watch.split()
        for each in (*optimizers, *schedules):
            each.step()
        watch.stop()
        losses.append(float(loss.detach()))
        if step % interval == 0 or step == settings.steps:
            curve.append((step, validate(model, valid[:CURVE_BATCHES])))
        if not (math.isfinite(losses[-1]) and all(math.isfinite(end) for _, end in curve[-1:])):
            return Result(None)
    final = validate(model, valid)
    if not math.isfinite(final):
        return Result(None)
    largest, condition, worst = conditioning(model)
    return Result(
        loss=final,
        curve=tuple(curve),
        train_loss=fmean(losses[-max(1, settings.steps // 10) :]),
        step_seconds=median(watch.steps),
        optimizer_seconds=median(watch.optimizer),
        cpu_seconds=median(watch.cpu),
        largest=largest,
        condition=condition,
        worst_condition=worst,
    )


class _Stopwatch:
    """Wall and processor times of steps, in seconds."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._wall = self._middle = self._processor = 0.0
        self.steps: list[float] = []
        self.optimizer: list[float] = []
        self.cpu: list[float] = []

    def start(self) -> None:
        self._processor = time.process_time()
        self._wall = self._now()

    def split(self) -> None:
        """The backward pass is done, and the optimiser begins."""
        self._middle = self._now()

    def stop(self) -> None:
        end = self._now()
        self.steps.append(end - self._wall)
        self.optimizer.append(end - self._middle)
        self.cpu.append(time.process_time() - self._processor)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
