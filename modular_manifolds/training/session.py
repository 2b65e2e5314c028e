"""A run in memory, step by step: no files, no printing."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from modular_manifolds.errors import NonFiniteError
from modular_manifolds.nn import Module
from modular_manifolds.specs import RunSpec
from modular_manifolds.training.device import device_of
from modular_manifolds.training.health import copy_weights, health
from modular_manifolds.training.losses import Loss, build_loss
from modular_manifolds.training.metrics import EpochMetrics, Measured, StepMetrics
from modular_manifolds.training.optimizers import build_optimizer, build_schedule
from modular_manifolds.training.part import Data, Part, order
from modular_manifolds.training.processes import ALONE, Processes
from modular_manifolds.training.shared import settle_buckets, shared, whole_state
from modular_manifolds.training.surroundings import surroundings

SPACING = 5
"""Steps between two evaluations at least, unless a run says another number: each decomposes every weight."""
MEASURED = 512
"""Examples in one forward pass when a whole part is measured."""


class Session:
    """A run in progress: `finished` steps of `steps` are done.

    A step depends on the seed, the data and the state only, so a run that goes on from the state of net,
    optimiser and schedule goes on bit for bit (on the same machine and number of threads, on the CPU). The
    first weights and the order of the examples are the same on every device.

    Several processes take the batch of the run together, a piece each (`Processes.share`). They take the same examples
    at every step as one process does, and their weights differ from its weights by rounding only.

    Args:
        spec: the run; its network is written out (`resolved`).
        data: moved to the run's device, and not copied if it is already there.
        net: the network; drawn from the run's seed, through torch's global generator, without it.
        processes: this process among those of the run, as `joined` gives it; alone without it, whatever the run says.

    Raises:
        SpecError: the run's device is not there, its loss cannot be had for this network or these data, or its batch
            does not divide by the number of processes.
    """

    def __init__(
        self,
        spec: RunSpec,
        data: Data,
        *,
        net: Module | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.spec = spec
        self.processes = processes
        processes.check_batch(spec.batch_size)
        self.device: torch.device = device_of(processes.device or spec.device)
        self.data: Data = data.to(self.device)
        self.net: Module = (build_network(spec) if net is None else net).to(self.device)
        self.loss: Loss = build_loss(spec.loss, self.net, data.scale)
        keeps_whole = processes.parallel == "fsdp" and processes.is_first
        self._whole: Module | None = copy.deepcopy(self.net) if keeps_whole else None
        self._model = shared(self.net, processes)
        self.steps_per_epoch: int = math.ceil(len(data.train) / spec.batch_size)
        self.steps: int = spec.steps or spec.epochs * self.steps_per_epoch
        short = math.ceil(SPACING / self.steps_per_epoch)
        self.evaluate_every: int = spec.evaluate_every or short * self.steps_per_epoch
        self.optimizer: torch.optim.Optimizer = build_optimizer(
            spec.optimizer, self.net, shared=self._model
        )
        self.schedule: LambdaLR = build_schedule(spec.schedule, self.optimizer, self.steps)
        self.finished: int = 0
        self._order: tuple[int, list[Tensor]] = (-1, [])
        self._before: dict[str, Tensor] | None = None
        if processes.parallel == "ddp":
            settle_buckets(self._model, self.data.train.take(self._batch()[:1])[0])

    @property
    def done(self) -> bool:
        return self.finished >= self.steps

    @property
    def epoch(self) -> int:
        """The epoch of the last step, counted from 1; 0 before the first."""
        return math.ceil(self.finished / self.steps_per_epoch)

    @property
    def epoch_done(self) -> bool:
        """Whether the last step ended an epoch, or the run."""
        return self.finished > 0 and (self.finished % self.steps_per_epoch == 0 or self.done)

    @property
    def evaluation_due(self) -> bool:
        """Whether the network is to be measured after the last step: a function of the number of steps only."""
        return self.finished > 0 and (self.done or self.finished % self.evaluate_every == 0)

    @property
    def steps_to_next_event(self) -> int:
        """Steps to the next end of an epoch, evaluation or end of the run; 0 if the run is done."""
        in_epoch = self.steps_per_epoch - self.finished % self.steps_per_epoch
        return max(0, min(in_epoch, self._steps_to_evaluation))

    @property
    def _steps_to_evaluation(self) -> int:
        spaced = self.evaluate_every - self.finished % self.evaluate_every
        return min(spaced, self.steps - self.finished)

    def step(self) -> StepMetrics:
        """One step.

        Raises:
            NonFiniteError: the loss or a gradient is NaN or infinite.
        """
        (metrics,) = self.advance(1)
        return metrics

    def advance(self, count: int) -> list[StepMetrics]:
        """`count` steps, or as many as are left; a GPU is waited for once.

        Raises:
            NonFiniteError: a loss or a gradient is NaN or infinite. On the CPU no weight has moved by it.
        """
        first = self.finished
        taken, rates = [], []
        for _ in range(min(count, self.steps - first)):
            rates.append(float(self.optimizer.param_groups[0]["lr"]))
            taken.append(self._take_step())
        if not taken:
            return []
        values = torch.stack(taken)
        if self.device.type != "cpu":
            values = self.processes.mean(values)
        metrics = [
            StepMetrics(step, math.ceil(step / self.steps_per_epoch), loss, accuracy, rate)
            for step, (loss, accuracy), rate in zip(
                range(first + 1, self.finished + 1), values.tolist(), rates, strict=True
            )
        ]
        for each in metrics:
            _check_finite(f"the loss at step {each.step}", each.loss)
        return metrics

    def evaluate(self) -> EpochMetrics:
        """Measure the network as it is now. Only process 0 has the health of the weights.

        Raises:
            NonFiniteError: the loss on either part is NaN or infinite.
        """
        train, test = self.measure(self.data.train_sample), self.measure(self.data.test)
        net = self.whole_net()
        return EpochMetrics(
            self.epoch,
            train.loss,
            train.accuracy,
            test.loss,
            test.accuracy,
            health(net, self._before) if self.processes.is_first else {},
        )

    def whole_net(self) -> Module:
        """The network with whole weights, in process 0. All processes must ask for it together."""
        if self.processes.parallel != "fsdp":
            return self.net
        state = whole_state(self.net)
        if self._whole is None:
            return self.net
        self._whole.load_state_dict(state)
        return self._whole

    @torch.no_grad()
    def measure(self, part: Part) -> Measured:
        """Loss and accuracy on all of `part`.

        Raises:
            NonFiniteError: the loss is NaN or infinite.
        """
        rows, count, last = [], 0, None
        for number, (inputs, labels) in enumerate(part.batches(MEASURED)):
            own = number % self.processes.count == self.processes.rank
            rows.append(self._sums(inputs, labels) if own else torch.zeros(2).double())
            count += labels.numel()
            last = inputs
        if (
            self.processes.parallel == "fsdp"
            and last is not None
            and 0 < len(rows) % self.processes.count <= self.processes.rank
        ):
            # A forward pass gathers weights, so every process needs as many.
            self.net(last)
        # Added in the order of the batches, so that any number of processes has the same bits.
        sums = torch.zeros(2).double()
        for row in self.processes.total(torch.stack(rows)):
            sums += row
        loss, right = (sums / count).tolist()
        _check_finite(f"the loss after step {self.finished}", loss)
        return Measured(loss, right)

    def _sums(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The sums of losses and of right outputs over the labels."""
        outputs = self.net(inputs)
        loss = self.loss(outputs, labels).double() * labels.numel()
        return torch.stack((loss, _is_correct(outputs, labels).sum().double())).cpu()

    def _take_step(self) -> Tensor:
        """One step; loss and accuracy on its batch, on a GPU those of this process."""
        batch, factor = self.processes.share(self._batch())
        inputs, labels = self.data.train.take(batch)
        self.optimizer.zero_grad()
        outputs = self._model(inputs)
        loss = self.loss(outputs, labels)
        if factor != 1:
            loss = loss * factor
        found = torch.stack(
            (loss.detach(), _is_correct(outputs.detach(), labels).float().mean() * factor)
        )
        if self.device.type == "cpu":
            # Elsewhere it would wait for the device at every step. All processes must agree before the backward pass.
            found = self.processes.mean(found)
            _check_finite(f"the loss at step {self.finished + 1}", float(found[0]))
        loss.backward()
        self._before = copy_weights(self.net) if self._steps_to_evaluation == 1 else None
        self.optimizer.step()
        self.schedule.step()
        self.finished += 1
        return found

    def _batch(self) -> Tensor:
        epoch, place = divmod(self.finished, self.steps_per_epoch)
        if self._order[0] != epoch:
            size, seed = self.spec.batch_size, self.spec.seed
            batches = order(self.data.train, size, seed=seed, epoch=epoch)
            self._order = epoch, [each.to(self.device) for each in batches]
        return self._order[1][place]


def build_network(spec: RunSpec) -> Module:
    """The network of a resolved run, drawn from its seed."""
    assert spec.network is not None, "resolved() writes the network out"
    torch.manual_seed(spec.seed)
    with surroundings(spec):
        return spec.network.build(
            "network", max_modules=spec.max_modules, max_weights=spec.max_weights
        )


def _is_correct(outputs: Tensor, labels: Tensor) -> Tensor:
    """Whether each label's output is the largest."""
    return outputs.argmax(dim=-1) == labels


def _check_finite(what: str, value: float) -> None:
    if not math.isfinite(value):
        raise NonFiniteError(
            what, "must be finite", value, "Lower optimizer.lr, or look at the data."
        )
