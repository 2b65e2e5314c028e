"""A session takes the steps of a run, measures, and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_runs import OPTIMIZERS, spec, train

from modular_manifolds.errors import NonFiniteError
from modular_manifolds.training.checkpoint import (
    read_checkpoint,
)
from modular_manifolds.training.data import DataSet
from modular_manifolds.training.health import copy_weights
from modular_manifolds.training.session import Session
from modular_manifolds.training.split import Split


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_session_takes_the_steps_of_a_run_and_writes_nothing(
    tmp_path: Path, data: DataSet, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A run sets its number of threads, and a session takes the caller's; another number rounds differently.
    run = spec(optimizer, f"threads={torch.get_num_threads()}")
    trainer, watcher = train(tmp_path / "run", data, run)
    monkeypatch.chdir(tmp_path)
    session = Session(run, data)
    taken = [session.step(), *session.advance(4)]
    assert session.epoch_done
    assert session.evaluate() == watcher.epochs[0]
    taken += session.advance(100)
    assert session.done
    assert session.advance(1) == []
    assert taken == watcher.steps
    assert session.evaluate() == watcher.epochs[-1]
    for a, b in zip(trainer.session.net.parameters(), session.net.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_a_session_copies_no_data(data: DataSet) -> None:
    session = Session(spec(), data)
    assert isinstance(session.data, DataSet)
    assert session.data.train.images.data_ptr() == data.train.images.data_ptr()
    assert session.data.test.labels.data_ptr() == data.test.labels.data_ptr()


def test_what_a_session_measures_is_the_mean_over_all_examples(data: DataSet) -> None:
    session = Session(spec("steepest-descent", "loss.name=margin"), data)
    whole = session.loss(session.net(data.train.images), data.train.labels).detach()
    right = session.net(data.train.images).argmax(dim=1) == data.train.labels
    found = session.measure(data.train)
    assert found.loss == pytest.approx(float(whole), rel=1e-5)
    assert found.accuracy == pytest.approx(float(right.float().mean()))


def test_parts_larger_than_a_batch_are_measured_whole(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(spec(), data)
    whole = session.measure(data.train)
    monkeypatch.setattr("modular_manifolds.training.session.MEASURED", 40)
    parts = session.measure(data.train)
    # The products of a part have another shape, so they round otherwise.
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert parts.accuracy == pytest.approx(whole.accuracy)


@pytest.mark.parametrize(("steps", "measured"), [(3, [3]), (5, [5]), (12, [5, 10, 12])])
def test_steps_override_epochs(
    tmp_path: Path, data: DataSet, steps: int, measured: list[int]
) -> None:
    run = spec("steepest-descent", f"steps={steps}", "checkpoint_every=2")
    trainer, watcher = train(tmp_path / "run", data, run)
    assert [each.step for each in watcher.steps] == list(range(1, steps + 1))
    assert watcher.steps[-1].lr == pytest.approx(0.1 / steps)
    rows = trainer.directory.read_metrics()
    assert [row["step"] for row in rows if "test_loss" in row] == measured
    assert [each.epoch for each in watcher.epochs] == list(range(1, len(measured) + 1))
    assert all(w.update is not None for each in watcher.epochs for w in each.weights.values())
    assert read_checkpoint(trainer.directory.checkpoint).step == steps


def test_nan_does_not_travel_from_the_last_step(data: DataSet) -> None:
    session = Session(spec("adamw", "steps=1"), data)
    session.step()
    with torch.no_grad():
        next(session.net.parameters()).fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="the loss after step 1 must be finite, got nan"):
        session.evaluate()


def test_a_loss_that_is_not_finite_moves_no_weight_on_the_cpu(data: DataSet) -> None:
    broken = DataSet(data.spec, Split(data.train.images / 0, data.train.labels), data.test, ())
    session = Session(spec("adamw"), broken)
    before = copy_weights(session.net)
    with pytest.raises(NonFiniteError, match="the loss at step 1 must be finite"):
        session.advance(5)
    assert all(torch.equal(before[name], p) for name, p in session.net.named_parameters())
