"""The training loop of a run directory: metrics, checkpoints, stopping and resuming."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from modular_manifolds.errors import CheckpointError
from modular_manifolds.nn import Module
from modular_manifolds.specs import RunSpec, load, save
from modular_manifolds.training.checkpoint import (
    read_first_checkpoint,
    restore_,
    state_of,
    write_checkpoint,
)
from modular_manifolds.training.device import device_of
from modular_manifolds.training.metrics import Observer
from modular_manifolds.training.part import Data
from modular_manifolds.training.processes import ALONE, Processes
from modular_manifolds.training.run_directory import RunDirectory
from modular_manifolds.training.session import Session, build_network
from modular_manifolds.training.stopwatch import Stopwatch
from modular_manifolds.training.surroundings import surroundings
from modular_manifolds.training.tensorboard import check_tensorboard, record_events

AHEAD: Final = 10
"""Steps that a GPU is given at once; each wait for it costs about as much as a small step."""


@dataclass
class Trainer:
    """A session whose metrics and state are kept in a run directory; `initial` is its first network, in process 0.

    Of several processes only the first one writes. All of them stop after the same step.
    """

    session: Session
    directory: RunDirectory
    initial: Module
    stop: Callable[[], bool] = field(default=lambda: False)
    """Called between steps; if it returns True, the run writes a checkpoint and returns."""
    seconds: Stopwatch = field(default_factory=Stopwatch)
    """The time that this process has spent on steps, evaluations and checkpoints. Nothing depends on it."""

    network: Module = field(init=False)
    """The network with whole weights: of a run whose processes hold shards after its end, in process 0."""

    def __post_init__(self) -> None:
        self.network = self.session.net

    def run(self, observer: Observer) -> bool:
        """Train until the end or until `stop()`; return whether the end was reached.

        Raises:
            NonFiniteError: the loss or a gradient became NaN or infinite.
        """
        with surroundings(self.session.spec):
            if not (self.session.spec.tensorboard and self.session.processes.is_first):
                return self._run(observer)
            after = self.session.finished
            with record_events(observer, self.directory.tensorboard, after=after) as both:
                return self._run(both)

    def _run(self, observer: Observer) -> bool:
        session = self.session
        ahead = 1 if session.device.type == "cpu" else AHEAD
        while not session.done:
            with self.seconds("steps"):
                taken = session.advance(min(ahead, session.steps_to_next_event))
            for metrics in taken:
                self._record(vars(metrics))
                observer.on_step(metrics)
            if session.evaluation_due:
                with self.seconds("evaluations"):
                    measured = session.evaluate()
                self._record({"step": session.finished, **asdict(measured)})
                observer.on_epoch(measured)
            stop = session.processes.any(self.stop())
            due = session.epoch_done and session.epoch % session.spec.checkpoint_every == 0
            if due or session.done or stop:
                with self.seconds("checkpoints"):
                    self.save()
            if stop and not session.done:
                return False
        self.network = session.whole_net()
        return True

    def save(self) -> None:
        """Write a checkpoint of the current state."""
        session = self.session
        state = state_of(
            step=session.finished,
            net=session.net,
            optimizer=session.optimizer,
            schedule=session.schedule,
            processes=session.processes,
        )

        def write() -> None:
            self.directory.flush_metrics()
            write_checkpoint(self.directory.checkpoint, state)

        session.processes.from_first(write)

    def _record(self, row: dict[str, Any]) -> None:
        if self.session.processes.is_first:
            self.directory.append_metrics_(row)


def check_machine(spec: RunSpec, processes: Processes = ALONE) -> None:
    """Refuse a run that this machine cannot start, before a folder is made for it.

    Raises:
        SpecError: the run asks for TensorBoard or a device that is not there, or for a batch that does not divide by the
            number of processes.
    """
    check_tensorboard(spec.tensorboard)
    device_of(processes.device or spec.device)
    processes.check_batch(spec.batch_size)


def start(
    spec: RunSpec, data: Data, directory: RunDirectory, *, processes: Processes = ALONE
) -> Trainer:
    """A run at its first step; the network's first weights are kept beside it."""
    net = build_network(spec)
    processes.from_first(lambda: save(net, directory.initial))
    # Each process draws its own random numbers, for dropout; the first one draws those of a run of one process.
    processes.reseed(spec.seed)
    session = Session(spec, data, net=net, processes=processes)
    # Only the report compares with it.
    initial = _initial(spec, directory) if processes.is_first else session.net
    trainer = Trainer(session, directory, initial)
    trainer.save()
    return trainer


def resume(
    spec: RunSpec, data: Data, directory: RunDirectory, *, processes: Processes = ALONE
) -> Trainer:
    """A run at its last checkpoint; a run that was killed before its first one starts from its beginning.

    No other run may work in the directory: `lock` keeps others out. The number of processes may be another one: then the
    rest of the run rounds differently.

    Raises:
        CheckpointError: the checkpoint is lost, damaged, or belongs to another run.
    """
    if processes.from_first(lambda: _is_unstarted(directory)):
        return start(spec, data, directory, processes=processes)
    # The other processes may be on machines without the file; their weights come with the checkpoint.
    net = _initial(spec, directory) if processes.is_first else build_network(spec)
    session = Session(spec, data, net=net, processes=processes)
    checkpoint = read_first_checkpoint(directory.checkpoint, processes)
    if not 0 <= checkpoint.step <= session.steps:
        raise CheckpointError(
            str(directory.checkpoint),
            f"must be of a run of {session.steps} steps",
            f"step {checkpoint.step}",
            "Put back the run.yaml that the run was started with.",
        )
    restore_(
        checkpoint,
        directory.checkpoint,
        net=session.net,
        optimizer=session.optimizer,
        schedule=session.schedule,
        processes=processes,
    )
    session.finished = checkpoint.step
    processes.from_first(lambda: directory.cut_metrics_(checkpoint.step))
    initial = _initial(spec, directory) if processes.is_first else session.net
    return Trainer(session, directory, initial)


def _is_unstarted(directory: RunDirectory) -> bool:
    directory.remove_temporaries_()
    return directory.is_unstarted


def _initial(spec: RunSpec, directory: RunDirectory) -> Module:
    """The network before the first step."""
    return load(directory.initial, max_modules=spec.max_modules, max_weights=spec.max_weights)
