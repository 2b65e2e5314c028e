"""The training loop of a run directory: metrics, checkpoints, stopping and resuming."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Final

from modular_manifolds.errors import CheckpointError
from modular_manifolds.nn import Module
from modular_manifolds.specs import RunSpec, load, save
from modular_manifolds.training.checkpoint import read_checkpoint, restore_, write_checkpoint
from modular_manifolds.training.device import device_of
from modular_manifolds.training.part import Data
from modular_manifolds.training.run_directory import RunDirectory
from modular_manifolds.training.session import Observer, Session, build_network, surroundings
from modular_manifolds.training.stopwatch import Stopwatch
from modular_manifolds.training.tensorboard import check_tensorboard, record_events

AHEAD: Final = 10
"""Steps that a GPU is given at once; each wait for it costs about as much as a small step."""


@dataclass
class Trainer:
    """A session whose metrics and state are kept in a run directory; `initial` is its first network."""

    session: Session
    directory: RunDirectory
    initial: Module
    stop: Callable[[], bool] = field(default=lambda: False)
    """Called between steps; if it returns True, the run writes a checkpoint and returns."""
    seconds: Stopwatch = field(default_factory=Stopwatch)
    """The time that this process has spent on steps, evaluations and checkpoints. Nothing depends on it."""

    def run(self, observer: Observer) -> bool:
        """Train until the end or until `stop()`; return whether the end was reached.

        Raises:
            NonFiniteError: the loss or a gradient became NaN or infinite.
        """
        with surroundings(self.session.spec):
            if not self.session.spec.tensorboard:
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
                self.directory.append_metrics_(vars(metrics))
                observer.on_step(metrics)
            if session.evaluation_due:
                with self.seconds("evaluations"):
                    measured = session.evaluate()
                self.directory.append_metrics_({"step": session.finished, **asdict(measured)})
                observer.on_epoch(measured)
            stop = self.stop()
            due = session.epoch_done and session.epoch % session.spec.checkpoint_every == 0
            if due or session.done or stop:
                with self.seconds("checkpoints"):
                    self.save()
            if stop and not session.done:
                return False
        return True

    def save(self) -> None:
        """Write a checkpoint of the current state."""
        self.directory.flush_metrics()
        write_checkpoint(
            self.directory.checkpoint,
            step=self.session.finished,
            net=self.session.net,
            optimizer=self.session.optimizer,
            schedule=self.session.schedule,
        )


def check_machine(spec: RunSpec) -> None:
    """Refuse a run that this machine cannot start, before a folder is made for it.

    Raises:
        SpecError: the run asks for TensorBoard or a device that is not there.
    """
    check_tensorboard(spec.tensorboard)
    device_of(spec.device)


def start(spec: RunSpec, data: Data, directory: RunDirectory) -> Trainer:
    """A run at its first step; the network's first weights are kept beside it."""
    net = build_network(spec)
    save(net, directory.initial)
    trainer = Trainer(Session(spec, data, net=net), directory, _initial(spec, directory))
    trainer.save()
    return trainer


def resume(spec: RunSpec, data: Data, directory: RunDirectory) -> Trainer:
    """A run at its last checkpoint; a run that was killed before its first one starts from its beginning.

    No other process may work in the directory: `held` keeps others out.

    Raises:
        CheckpointError: the checkpoint is lost, damaged, or belongs to another run.
    """
    directory.remove_temporaries_()
    if directory.is_unstarted:
        return start(spec, data, directory)
    session = Session(spec, data, net=_initial(spec, directory))
    checkpoint = read_checkpoint(directory.checkpoint)
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
    )
    session.finished = checkpoint.step
    directory.cut_metrics_(checkpoint.step)
    return Trainer(session, directory, _initial(spec, directory))


def _initial(spec: RunSpec, directory: RunDirectory) -> Module:
    """The network before the first step."""
    return load(directory.initial, max_modules=spec.max_modules, max_weights=spec.max_weights)
