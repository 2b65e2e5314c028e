"""The training loop: from a run to a trained network, step by step, and on from where it stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Protocol

import torch

from modular_manifolds.errors import CheckpointError, NonFiniteError
from modular_manifolds.nn import Module
from modular_manifolds.specs import RunSpec, load, save
from modular_manifolds.training.checkpoint import read_checkpoint, restore_, write_checkpoint
from modular_manifolds.training.data import DataSet, batches
from modular_manifolds.training.health import WeightHealth, copied, health
from modular_manifolds.training.losses import Loss, build_loss
from modular_manifolds.training.optimizers import build_optimizer, build_schedule
from modular_manifolds.training.run_directory import RunDirectory
from modular_manifolds.training.split import Split
from modular_manifolds.training.tensorboard import recorded


@dataclass(frozen=True)
class StepMetrics:
    """One step, counted from 1: loss and accuracy on its batch, before the step."""

    step: int
    epoch: int
    loss: float
    accuracy: float
    lr: float


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch, counted from 1: accuracies on all examples after it, and the health of each weight."""

    epoch: int
    train_accuracy: float
    test_accuracy: float
    weights: dict[str, WeightHealth]


class Observer(Protocol):
    """Who wants to know how the run goes; it may not change it."""

    def on_step(self, metrics: StepMetrics) -> None: ...

    def on_epoch(self, metrics: EpochMetrics) -> None: ...


@dataclass
class Trainer:
    """A run in progress. `finished` steps of `steps` are done.

    A step depends on the seed, the data and the state only, all of which a checkpoint holds, so a run
    that stopped goes on bit for bit (on the same machine and number of threads, on the CPU).
    """

    spec: RunSpec
    data: DataSet
    directory: RunDirectory
    net: Module
    initial: Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    loss: Loss
    finished: int = 0
    stop: Callable[[], bool] = field(default=lambda: False)
    """Asked after each step; the run writes a checkpoint and returns where it says yes."""

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.data.train.labels) / self.spec.batch_size)

    @property
    def steps(self) -> int:
        return self.spec.epochs * self.steps_per_epoch

    @property
    def done(self) -> bool:
        return self.finished >= self.steps

    def run(self, observer: Observer) -> bool:
        """Train to the end, or until `stop` says so; whether the end was reached.

        Raises:
            NonFiniteError: the loss or a gradient became NaN or infinite.
        """
        with _threads(self.spec.threads):
            if not self.spec.tensorboard:
                return self._run(observer)
            with recorded(observer, self.directory.tensorboard, after=self.finished) as both:
                return self._run(both)

    def _run(self, observer: Observer) -> bool:
        while not self.done:
            epoch, first = divmod(self.finished, self.steps_per_epoch)
            order = batches(self.data.train, self.spec.batch_size, seed=self.spec.seed, epoch=epoch)
            before: dict[str, torch.Tensor] | None = None
            for chosen in order[first:]:
                if (self.finished + 1) % self.steps_per_epoch == 0:
                    before = copied(self.net)
                metrics = self._step(chosen, epoch)
                self.directory.append_metrics_(vars(metrics))
                observer.on_step(metrics)
                if self.stop() and self.finished % self.steps_per_epoch:
                    self.save()
                    return False
            measured = EpochMetrics(
                epoch + 1,
                accuracy(self.net, self.data.train),
                accuracy(self.net, self.data.test),
                health(self.net, before),
            )
            self.directory.append_metrics_({"step": self.finished, **asdict(measured)})
            observer.on_epoch(measured)
            if self.done or self.stop() or (epoch + 1) % self.spec.checkpoint_every == 0:
                self.save()
            if self.stop() and not self.done:
                return False
        return True

    def save(self) -> None:
        """Write the state as it is now."""
        write_checkpoint(
            self.directory.checkpoint,
            step=self.finished,
            net=self.net,
            optimizer=self.optimizer,
            schedule=self.schedule,
        )

    def _step(self, chosen: torch.Tensor, epoch: int) -> StepMetrics:
        labels = self.data.train.labels[chosen]
        self.optimizer.zero_grad()
        outputs = self.net(self.data.train.images[chosen])
        loss = self.loss(outputs, labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteError(
                f"the loss at step {self.finished + 1}",
                "must be finite",
                value,
                "Lower optimizer.lr, or look at the data.",
            )
        loss.backward()
        lr = float(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        self.schedule.step()
        self.finished += 1
        right = float((outputs.detach().argmax(dim=1) == labels).float().mean())
        return StepMetrics(self.finished, epoch + 1, value, right, lr)


def start(spec: RunSpec, data: DataSet, directory: RunDirectory) -> Trainer:
    """A run at its first step; the network's first weights are kept beside it."""
    torch.manual_seed(spec.seed)
    net = built(spec)
    save(net, directory.initial)
    trainer = _trainer(spec, data, directory, net)
    trainer.save()
    return trainer


def resume(spec: RunSpec, data: DataSet, directory: RunDirectory) -> Trainer:
    """A run where its last checkpoint left it.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, or belongs to another run.
    """
    trainer = _trainer(spec, data, directory, load(directory.initial))
    checkpoint = read_checkpoint(directory.checkpoint)
    if not 0 <= checkpoint.step <= trainer.steps:
        raise CheckpointError(
            str(directory.checkpoint),
            f"must be of a run of {trainer.steps} steps",
            f"step {checkpoint.step}",
            "Put back the run.yaml that the run was started with.",
        )
    restore_(
        checkpoint,
        directory.checkpoint,
        net=trainer.net,
        optimizer=trainer.optimizer,
        schedule=trainer.schedule,
    )
    trainer.finished = checkpoint.step
    directory.cut_metrics_(checkpoint.step)
    return trainer


def built(spec: RunSpec) -> Module:
    """The network of a resolved run."""
    assert spec.network is not None, "resolved() writes the network out"
    return spec.network.build("network")


@torch.no_grad()
def accuracy(net: Module, split: Split) -> float:
    """The part of the examples whose largest output is their label's."""
    return float((net(split.images).argmax(dim=1) == split.labels).float().mean())


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """torch's threads while inside; another number would round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _trainer(spec: RunSpec, data: DataSet, directory: RunDirectory, net: Module) -> Trainer:
    optimizer = build_optimizer(spec.optimizer, net)
    steps = spec.epochs * math.ceil(len(data.train.labels) / spec.batch_size)
    schedule = build_schedule(spec.schedule, optimizer, steps)
    return Trainer(
        spec=spec,
        data=data,
        directory=directory,
        net=net,
        initial=load(directory.initial),
        optimizer=optimizer,
        schedule=schedule,
        loss=build_loss(spec.loss, net, data.scale),
    )
