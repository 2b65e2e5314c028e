"""The steps after which a run is measured: a function of their number only."""

from __future__ import annotations

from pathlib import Path

import pytest

import modular_manifolds as mm
from modular_manifolds.training import DataSet, Split, load_data, resume, start
from modular_manifolds.training.metrics import EpochMetrics, StepMetrics
from modular_manifolds.training.run_directory import RunDirectory, begin
from modular_manifolds.training.session import Session


class Unobserved:
    def on_step(self, metrics: StepMetrics) -> None: ...

    def on_epoch(self, metrics: EpochMetrics) -> None: ...


@pytest.fixture(scope="module")
def data() -> DataSet:
    """A few digits: two steps of 12 an epoch."""
    whole = load_data("digits")
    train, test = (Split(each.images[:24], each.labels[:24]) for each in (whole.train, whole.test))
    return DataSet(whole.spec, train, test, whole.classes)


def spec(*more: str) -> mm.RunSpec:
    changes = ["model.hidden=[4]", "batch_size=12", "epochs=10", *more]
    return mm.RunSpec().override(changes).resolved()


def measured(directory: RunDirectory) -> list[int]:
    return [row["step"] for row in directory.read_metrics() if "test_loss" in row]


@pytest.mark.parametrize(
    ("more", "steps"),
    [
        # Three epochs of two steps are the first that hold five.
        ([], [6, 12, 18, 20]),
        (["batch_size=4"], [6, 12, 18, 24, 30, 36, 42, 48, 54, 60]),
        (["steps=3"], [3]),
        (["evaluate_every=7"], [7, 14, 20]),
        (["evaluate_every=1", "steps=3"], [1, 2, 3]),
    ],
)
def test_short_epochs_are_measured_together(
    tmp_path: Path, data: DataSet, more: list[str], steps: list[int]
) -> None:
    run = spec(*more)
    trainer = start(run, data, begin(run, tmp_path / "run"))
    assert trainer.run(Unobserved())
    assert measured(trainer.directory) == steps
    rows = [row for row in trainer.directory.read_metrics() if "test_loss" in row]
    assert all(w["update"] is not None for row in rows for w in row["weights"].values())
    assert all(each in str(trainer.seconds) for each in ("steps", "evaluations", "checkpoints"))


@pytest.mark.parametrize("stop_after", [3, 7, 8])
def test_a_stop_between_evaluations_changes_nothing(
    tmp_path: Path, data: DataSet, stop_after: int
) -> None:
    run = spec("evaluate_every=7")
    whole = start(run, data, begin(run, tmp_path / "whole"))
    whole.run(Unobserved())
    stopped = start(run, data, begin(run, tmp_path / "stopped"))
    stopped.stop = lambda: stopped.session.finished >= stop_after
    assert not stopped.run(Unobserved())
    assert resume(run, data, stopped.directory).run(Unobserved())
    for name in ("metrics.jsonl", "checkpoint.safetensors"):
        files = [tmp_path / each / name for each in ("whole", "stopped")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_session_says_when_it_is_due(data: DataSet) -> None:
    session = Session(spec("evaluate_every=3", "steps=5"), data)
    due, left = [], []
    while not session.done:
        left.append(session.steps_to_next_event)
        session.step()
        due.append(session.evaluation_due)
    assert due == [False, False, True, False, True]
    # The ends of epochs, after steps 2 and 4, count too.
    assert left == [2, 1, 1, 1, 1]
    assert session.steps_to_next_event == 0
