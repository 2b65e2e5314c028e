"""Runs that were interrupted or killed go on bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from long_tests import mostly_long
from small_runs import OPTIMIZERS, KilledError, Killer, spec, train
from watcher import Watcher
from weights import as_one_group_a_weight

from modular_manifolds.training import resume, start
from modular_manifolds.training.checkpoint import (
    read_checkpoint,
    restore_,
    state_of,
    write_checkpoint,
)
from modular_manifolds.training.data import DataSet
from modular_manifolds.training.run_directory import RunDirectory, begin
from modular_manifolds.training.session import Session


def assert_same_run(a: Path, b: Path) -> None:
    for name in ("run.yaml", "metrics.jsonl", "checkpoint.safetensors", "initial.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop_after", mostly_long([1, 5, 7], usual=lambda stop: stop == 5))
def test_an_interrupted_run_goes_on_bit_for_bit(
    tmp_path: Path, data: DataSet, optimizer: str, stop_after: int
) -> None:
    run = spec(optimizer)
    whole, _ = train(tmp_path / "whole", data, run)
    assert whole.session.done
    part, _ = train(tmp_path / "part", data, run, stop_after)
    assert part.session.finished == stop_after
    torch.manual_seed(999)  # what happens between must not matter
    directory = RunDirectory(tmp_path / "part")
    again = resume(directory.read_run(), data, directory)
    assert again.session.finished == stop_after
    assert again.run(Watcher(again))
    assert_same_run(tmp_path / "whole", tmp_path / "part")
    for a, b in zip(whole.session.net.parameters(), again.session.net.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_killed_run_goes_on_from_its_last_checkpoint(
    tmp_path: Path, data: DataSet, optimizer: str
) -> None:
    run = spec(optimizer)
    train(tmp_path / "whole", data, run)
    trainer = start(run, data, begin(run, tmp_path / "killed"))
    with pytest.raises(KilledError):
        trainer.run(Killer(trainer, after=8))
    directory = RunDirectory(tmp_path / "killed")
    with directory.metrics.open("a") as file:
        file.write('{"step": 9, "lo')  # cut in the middle of a line
    again = resume(directory.read_run(), data, directory)
    assert again.session.finished == 5
    again.run(Watcher(again))
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_checkpoint_with_one_group_a_weight_goes_on_bit_for_bit(
    tmp_path: Path, data: DataSet
) -> None:
    run = spec("steepest-descent", "steps=5")
    first, second = Session(run, data), Session(run, data)
    first.advance(3)
    path = tmp_path / "checkpoint"
    whole = {"net": first.net, "optimizer": first.optimizer, "schedule": first.schedule}
    write_checkpoint(path, state_of(step=3, **whole))
    saved = read_checkpoint(path)
    groups = as_one_group_a_weight({"param_groups": saved.content["groups"]})["param_groups"]
    assert len(groups) > 1
    schedule = {
        key: value * len(groups) if isinstance(value, list) else value
        for key, value in saved.content["schedule"].items()
    }
    former = replace(saved, content={**saved.content, "groups": groups, "schedule": schedule})
    restore_(former, path, net=second.net, optimizer=second.optimizer, schedule=second.schedule)
    second.finished = 3
    assert second.advance(2) == first.advance(2)
    for p, q in zip(first.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_run_file_reproduces_the_run(tmp_path: Path, data: DataSet) -> None:
    first, _ = train(tmp_path / "first", data, spec())
    again, _ = train(tmp_path / "again", data, RunDirectory(tmp_path / "first").read_run())
    assert_same_run(tmp_path / "first", tmp_path / "again")
    for a, b in zip(first.session.net.parameters(), again.session.net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_computes_as_it_says_whatever_surrounds_it(tmp_path: Path, data: DataSet) -> None:
    run = spec("steepest-descent", "steps=2")
    train(tmp_path / "plain", data, run)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
            train(tmp_path / "surrounded", data, run)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same_run(tmp_path / "plain", tmp_path / "surrounded")
