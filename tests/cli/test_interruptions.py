"""Signals, full disks, other processes and surroundings: a run stops in words and goes on bit for bit."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from blank_pictures import leave_out_pictures
from command import program
from long_tests import mostly_long

from modular_manifolds.cli.main import main
from modular_manifolds.training.run_directory import RunDirectory
from modular_manifolds.training.sweep import Results


@pytest.fixture(scope="module", autouse=True)
def blank_pictures() -> Iterator[None]:
    """The reports of one run stopped and one not stopped are equal with any pictures."""
    with pytest.MonkeyPatch.context() as patch:
        leave_out_pictures(patch)
        yield


EACH_SIGNAL = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
SLOW_ENOUGH = ["--set", "batch_size=16", "--epochs", "2", "--optimizer", "adamw"]
"""So many steps that a signal comes before the last."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "--out", "whole", *SLOW_ENOUGH]) == 0
    return folder / "whole"


@pytest.mark.long
@pytest.mark.seeds_as_written
@EACH_SIGNAL
def test_a_signal_stops_the_run_and_resume_goes_on(
    elsewhere: Path, whole: Path, number: signal.Signals
) -> None:
    process = program("train", "--out", "part", *SLOW_ENOUGH, cwd=elsewhere)
    metrics = elsewhere / "part" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert err == ""
    assert process.returncode == 130, out
    assert "modular-manifolds train --resume part" in out
    assert main(["train", "--resume", "part"]) == 0
    for name in ("metrics.jsonl", "checkpoint.safetensors", "run.yaml"):
        assert (elsewhere / "part" / name).read_bytes() == (whole / name).read_bytes()


SHORT = ["--steps", "4", "--set", "model.hidden=[8]", "--optimizer", "adamw"]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of few steps that nobody stopped."""
    folder = tmp_path_factory.mktemp("short")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "--out", "run", *SHORT]) == 0
    return folder / "run"


@pytest.mark.seeds_as_written
@EACH_SIGNAL
def test_a_signal_between_two_steps_stops_the_run_and_resume_goes_on(
    elsewhere: Path,
    short: Path,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process; the test above signals another one."""
    append = RunDirectory.append_metrics_

    def append_and_signal(run: RunDirectory, row: dict[str, object]) -> None:
        append(run, row)
        if row["step"] == 2:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "append_metrics_", append_and_signal)
        assert main(["train", "--out", "run", *SHORT]) == 130
    assert "modular-manifolds train --resume run" in capsys.readouterr().out
    assert (elsewhere / "run" / "metrics.jsonl").read_bytes() != (
        short / "metrics.jsonl"
    ).read_bytes()
    assert main(["train", "--resume", "run"]) == 0
    for name in ("metrics.jsonl", "checkpoint.safetensors", "run.yaml"):
        assert (elsewhere / "run" / name).read_bytes() == (short / name).read_bytes()


@pytest.mark.parametrize(
    "setting",
    mostly_long(
        ["dtype", "inference", "no gradients", "autocast", "device"],
        usual=lambda setting: setting in ("dtype", "inference"),
    ),
)
def test_the_surroundings_of_a_program_do_not_reach_a_run(
    setting: str, short: Path, elsewhere: Path
) -> None:
    before = torch.get_default_dtype()
    contexts = {
        "inference": torch.inference_mode,
        "no gradients": torch.no_grad,
        "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        "device": lambda: torch.device("meta"),
    }
    with contexts.get(setting, nullcontext)():
        try:
            if setting == "dtype":
                torch.set_default_dtype(torch.float64)
            assert main(["train", "--out", "run", *SHORT]) == 0
            assert main(["lipschitz", "run"]) == 0
            assert torch.get_default_dtype() == (torch.float64 if setting == "dtype" else before)
        finally:
            torch.set_default_dtype(before)
    for name in ("metrics.jsonl", "checkpoint.safetensors", "initial.safetensors"):
        assert (elsewhere / "run" / name).read_bytes() == (short / name).read_bytes()


@pytest.mark.long
def test_a_run_goes_on_from_any_folder(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("größe σ.txt").write_text("abcdefgh\n" * 100, encoding="utf-8")
    tiny = ["--set", "model.width=4", "--set", "model.depth=1", "--set", "model.heads=1"]
    text = ["--data", "text", "--data-path", "größe σ.txt", "--set", "data.context=8"]
    assert main(["train", *text, *tiny, "--steps", "1", "--out", "a b"]) == 0
    (elsewhere / "other").mkdir()
    monkeypatch.chdir(elsewhere / "other")
    assert main(["train", "--resume", "../a b"]) == 0
    assert "Nothing to do" in capsys.readouterr().out


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_from_its_beginning(
    short: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "run").mkdir()
    (elsewhere / "run" / "run.yaml").write_bytes((short / "run.yaml").read_bytes())
    (elsewhere / "run" / f".{32 * '0'}.tmp").write_text("half")
    assert main(["lipschitz", "run"]) == 2
    assert "train --resume run" in capsys.readouterr().err
    assert main(["train", "--resume", "run"]) == 0
    assert "It starts from its beginning" in capsys.readouterr().out
    for name in ("metrics.jsonl", "checkpoint.safetensors", "initial.safetensors", "report.html"):
        assert (elsewhere / "run" / name).read_bytes() == (short / name).read_bytes()
    assert not list((elsewhere / "run").glob(".*"))


@pytest.mark.skipif(os.name != "posix", reason="needs locks")
def test_two_processes_do_not_work_in_one_folder(
    elsewhere: Path, short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(short, elsewhere / "run")
    with RunDirectory(elsewhere / "run").lock("--out"):
        assert main(["train", "--resume", "run"]) == 2
    assert (
        "--resume must be a folder in which no other process works, got run."
        in capsys.readouterr().err
    )
    sweep = ["sweep", "--set", "steps=1", "--lr", "2^-1..2^-1", "-o", "s"]
    assert main(sweep) == 0
    with Results(elsewhere / "s").lock():
        assert main(sweep) == 2
    assert "--out must be a folder in which no other process works" in capsys.readouterr().err
    assert main(["train", "--resume", "run"]) == 0


@pytest.mark.parametrize("call", ["metrics", "checkpoint", "report"])
def test_a_full_disk_stops_a_run_in_words_and_it_goes_on_later(
    call: str,
    elsewhere: Path,
    short: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Half a line, half a checkpoint and half a report are never taken for whole ones."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run")
    if call == "metrics":
        metrics = elsewhere / "run" / "metrics.jsonl"

        def append(_: RunDirectory, row: dict[str, object]) -> None:
            with metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row)[:-9] if row["step"] == 3 else json.dumps(row) + "\n")
            if row["step"] == 3:
                raise full

        target, fails = (
            "modular_manifolds.training.run_directory.RunDirectory.append_metrics_",
            append,
        )
    elif call == "checkpoint":
        files = 0

        def save_file(tensors: Any, path: Path, metadata: Any) -> None:
            nonlocal files
            files += 1
            # The first network, the first checkpoint, and the one at the end.
            if files == 3:
                path.write_bytes(b"half")
                raise full
            safetensors.torch.save_file(tensors, path, metadata)

        target, fails = "modular_manifolds.specs.archive.save_file", save_file
    else:

        def flush(path: Path) -> None:
            # The report holds all the pictures, and is larger than any of them.
            if path.suffix == ".tmp" and path.stat().st_size > 100_000:
                path.write_bytes(b"half")
                raise full

        target, fails = "modular_manifolds.specs.whole.flush", flush
    with monkeypatch.context() as patch:
        patch.setattr(target, fails)
        assert main(["train", "--out", "run", *SHORT]) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert error.count("\n") == 1
    assert not list((elsewhere / "run").glob(".*.tmp"))
    assert not (elsewhere / "run" / "report.html").exists()
    assert main(["train", "--resume", "run"]) == 0
    for name in ("metrics.jsonl", "checkpoint.safetensors", "report.html"):
        assert (elsewhere / "run" / name).read_bytes() == (short / name).read_bytes()


def test_a_killed_process_of_a_sweep_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system kills the largest process if memory runs out."""

    def killed(*_: object) -> Future[None]:
        future: Future[None] = Future()
        future.set_exception(BrokenProcessPool())
        return future

    monkeypatch.setattr(ProcessPoolExecutor, "submit", killed)
    assert main(["sweep", "-o", "s", "--jobs", "2"]) == 2
    assert "fewer --jobs" in capsys.readouterr().err


def test_the_signal_that_ends_a_sweep_is_answered_as_ctrl_c_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        "modular_manifolds.training.sweep.run_points",
        lambda *_, **__: signal.raise_signal(signal.SIGTERM),
    )
    assert main(["sweep", "-o", "s"]) == 130
    assert capsys.readouterr().out.startswith("Stopped after 0 runs, which are kept.")
    assert signal.getsignal(signal.SIGTERM) == before
