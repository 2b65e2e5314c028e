"""Runs that torchrun launches: what does not fit together is refused in words, and a launch that is repeated goes on."""

from __future__ import annotations

import runpy
import socket
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from modular_manifolds.cli.main import main
from modular_manifolds.errors import SpecError
from modular_manifolds.specs import RunSpec
from modular_manifolds.training.processes import joined

RUN = ["train", "--set", "model.hidden=[8]", "--steps", "3", "--set", "parallel=ddp"]


def launch(patch: pytest.MonkeyPatch, *, rank: int = 0, count: int = 1, restarts: int = 0) -> None:
    """Set the variables of torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_MAX_RESTARTS": restarts,
        "GLOO_SOCKET_IFNAME": "lo",
    }
    for name, value in variables.items():
        patch.setenv(name, str(value))


def test_several_processes_need_a_run_of_several(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank, start in enumerate(["error: ", "error in process 1: "]):
        launch(monkeypatch, rank=rank, count=2)
        assert main(["train", "--out", "run"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"{start}parallel must be ddp or fsdp if several processes train")
        assert "got none in one of 2 processes. Add --set parallel=ddp" in error
        assert not Path("run").exists()


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_run_of_several_needs_torchrun(parallel: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--set", f"parallel={parallel}", "--out", "run"]) == 2
    error = capsys.readouterr().err
    assert f"parallel must be none without torchrun, got {parallel}." in error
    assert "torchrun --nproc-per-node 2 -m modular_manifolds train" in error
    assert not Path("run").exists()


def test_a_sweep_has_one_process_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--set", "parallel=ddp", "--out", "s"]) == 2
    assert "parallel must be none in a sweep" in capsys.readouterr().err


def test_several_processes_do_not_share_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, count=2)
    run = RunSpec(parallel="ddp", device="cuda:0")
    with pytest.raises(SpecError, match="device must be cpu or cuda if several"), joined(run):
        pass


@pytest.mark.usefixtures("blank_pictures")
def test_a_launch_that_is_repeated_goes_on_with_its_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(monkeypatch, restarts=2)
    assert main(RUN) == 2
    assert "--out must be given with torchrun --max-restarts" in capsys.readouterr().err
    assert main([*RUN, "--out", "run"]) == 0
    metrics = Path("run/metrics.jsonl").read_bytes()
    capsys.readouterr()
    launch(monkeypatch, restarts=2)
    assert main([*RUN, "--out", "run"]) == 0
    assert "Nothing to do: all 3 steps" in capsys.readouterr().out
    assert Path("run/metrics.jsonl").read_bytes() == metrics
    launch(monkeypatch, restarts=2)
    assert main([*RUN, "--seed", "7", "--out", "run"]) == 2
    assert "--out must hold this run" in capsys.readouterr().err
    launch(monkeypatch)
    assert main([*RUN, "--out", "run"]) == 2
    assert "--out must be a new or an empty folder" in capsys.readouterr().err
    assert not dist.is_initialized()


def test_the_package_is_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["modular_manifolds", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("modular_manifolds", run_name="__main__")
    assert end.value.code == 0
