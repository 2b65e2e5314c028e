"""Checkpoints are whole at any time, and damaged ones are refused."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from small_runs import spec, train

import modular_manifolds as mm
from modular_manifolds.errors import CheckpointError, SpecError
from modular_manifolds.training import resume
from modular_manifolds.training.checkpoint import load_trained
from modular_manifolds.training.data import DataSet
from modular_manifolds.training.run_directory import RunDirectory


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, data: DataSet) -> Path:
    path = tmp_path_factory.mktemp("runs") / "stopped"
    train(path, data, spec(), stop_after=2)
    return path


@pytest.fixture
def damaged(stopped: Path, tmp_path: Path) -> RunDirectory:
    """A copy that a test may damage."""
    shutil.copytree(stopped, tmp_path / "copy")
    return RunDirectory(tmp_path / "copy")


@pytest.mark.parametrize("keep", [0, 7, 100, 5000])
def test_a_truncated_checkpoint_is_refused(damaged: RunDirectory, data: DataSet, keep: int) -> None:
    damaged.checkpoint.write_bytes(damaged.checkpoint.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors") as caught:
        resume(damaged.read_run(), data, damaged)
    assert "\n" not in str(caught.value)


def test_a_changed_byte_is_noticed(damaged: RunDirectory, data: DataSet) -> None:
    content = bytearray(damaged.checkpoint.read_bytes())
    content[-100] ^= 1
    damaged.checkpoint.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="another checksum"):
        resume(damaged.read_run(), data, damaged)


def test_a_pickle_is_not_opened(damaged: RunDirectory, data: DataSet) -> None:
    torch.save({"step": 1}, damaged.checkpoint)
    with pytest.raises(CheckpointError, match="must be a whole safetensors file"):
        resume(damaged.read_run(), data, damaged)


@pytest.mark.parametrize("name", ["run.yaml", "checkpoint.safetensors", "initial.safetensors"])
def test_a_missing_file_is_refused(damaged: RunDirectory, data: DataSet, name: str) -> None:
    (damaged.path / name).unlink()
    with pytest.raises(CheckpointError):
        resume(damaged.read_run(), data, damaged)


def test_a_run_of_another_version_is_refused(damaged: RunDirectory) -> None:
    text = damaged.run.read_text()
    damaged.run.write_text(text.replace("format: 1", "format: 2"))
    with pytest.raises(SpecError, match="format must be 1, got 2"):
        damaged.read_run()


def test_a_checkpoint_of_another_optimizer_is_refused(damaged: RunDirectory, data: DataSet) -> None:
    text = damaged.run.read_text()
    other = mm.RunSpec.from_file(damaged.run).override(
        ["network.modules.0.out_features=100", "network.modules.2.in_features=100"]
    )
    damaged.run.write_text(other.to_yaml())
    assert damaged.run.read_text() != text
    mm.save(other.network.build() if other.network else mm.Identity(), damaged.initial)
    with pytest.raises(CheckpointError, match="must belong to the run beside it"):
        resume(damaged.read_run(), data, damaged)


def test_a_checkpoint_is_whole_at_any_time(
    tmp_path: Path, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = train(tmp_path / "run", data, spec(), stop_after=2)
    before = trainer.directory.checkpoint.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("modular_manifolds.specs.archive.save_file", fail)
    with pytest.raises(CheckpointError, match="no space left"):
        trainer.save()
    assert trainer.directory.checkpoint.read_bytes() == before
    assert not list(trainer.directory.path.glob("*.tmp"))


def test_a_lost_checkpoint_is_not_taken_for_a_run_that_had_none(
    damaged: RunDirectory, data: DataSet
) -> None:
    """There are metrics, so there was a checkpoint: to start again would throw the run away."""
    damaged.checkpoint.unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors must be a readable file"):
        resume(damaged.read_run(), data, damaged)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_checkpoint_that_is_not_finite_is_no_trained_network(
    tmp_path: Path, data: DataSet, value: float
) -> None:
    trainer, _ = train(tmp_path / "run", data, spec(), stop_after=1)
    with torch.no_grad():
        next(trainer.session.net.parameters())[0, 0] = value
    trainer.save()
    with pytest.raises(CheckpointError, match=r"'0\.weight' must be finite, got NaN or infinity"):
        load_trained(trainer.directory)
