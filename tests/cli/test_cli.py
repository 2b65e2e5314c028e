"""The commands as a new user meets them: train, budget, schema, mistakes and help."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml
from command import QUICK

from modular_manifolds.cli.main import main
from modular_manifolds.errors import SpecError


def test_train_without_an_argument(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All but the number of epochs as README's first command has it."""
    assert main(["train", "--epochs", "2"]) == 0
    out = capsys.readouterr().out
    for text in (
        "epoch 2/2",
        "Learning-rate split",
        "declared Lipschitz bound  1 from l2 to l2",
        "condition",
        "off manifold",
        "accuracy",
        "report",
    ):
        assert text in out
    assert "\x1b" not in out  # no control characters where there is no terminal
    (run,) = (elsewhere / "runs").iterdir()
    assert run.name.startswith("digits-steepest-descent-")
    assert {each.name for each in run.iterdir()} == {
        "run.yaml",
        "metrics.jsonl",
        "initial.safetensors",
        "checkpoint.safetensors",
        "report.html",
        "pictures",
    }
    written = yaml.safe_load((run / "run.yaml").read_text())
    assert written["network"]["modules"][0]["in_features"] == 64


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_baselines_train_and_say_what_is_not_guaranteed(
    optimizer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--optimizer", optimizer, "--out", "run", *QUICK]) == 0
    assert "not guaranteed: the weights are off their manifolds" in capsys.readouterr().out


@pytest.mark.usefixtures("blank_pictures")
def test_a_run_file_with_changes(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.yaml").write_text("optimizer: {name: steepest-descent, lr: 0.2}\nepochs: 7\n")
    assert main(["train", "my.yaml", "--set", "optimizer.lr=0.3", "--out", "run", *QUICK]) == 0
    written = yaml.safe_load((elsewhere / "run" / "run.yaml").read_text())
    assert (written["optimizer"]["lr"], written["epochs"]) == (0.3, 1)
    assert "epoch 1/1" in capsys.readouterr().out


@pytest.mark.usefixtures("blank_pictures")
def test_a_bias_shows_a_dash_for_its_condition_number(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modules = [
        {"type": "linear", "in_features": 64, "out_features": 10},
        {"type": "bias", "features": 10, "mass": 0.0},
    ]
    file = elsewhere / "run.yaml"
    file.write_text(yaml.safe_dump({"network": {"type": "series", "modules": modules}}))
    assert main(["train", str(file), *QUICK, "--out", "out"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    row = next(line for line in lines if line[:1] == ["1.weight"] and "Frobenius" not in line)
    assert row[-7:] == ["0", "│", "0", "│", "-", "│", "0"]
    rows = [json.loads(line) for line in Path("out/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["weights"]["1.weight"]["condition"] is None
    assert "<td>0</td><td>0</td><td>-</td>" in Path("out/report.html").read_text()


def test_budget_prints_the_split(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["budget", "--set", "network.modules.4.mass=2", "--set", "optimizer.lr=0.4"]) == 0
    out = capsys.readouterr().out
    assert "0.25" in out
    assert "0.5" in out
    assert "one step moves the output by at most 0.4" in out
    assert not Path("runs").exists()


@pytest.mark.parametrize("kind", ["run", "network"])
def test_schema_is_a_schema(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", kind]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)


MISTAKES = {
    "unknown key": (["train", "--set", "optmizer.lr=1"], "Did you mean 'optimizer'?"),
    "unknown optimizer": (["train", "--optimizer", "sgd"], "optimizer.name"),
    "unknown data": (["train", "--data", "mnist"], "data.name"),
    "not a number": (["train", "--set", "optimizer.lr=fast"], "optimizer.lr must be a number"),
    "negative": (["budget", "--set", "optimizer.lr=-1"], "optimizer.lr must be greater than 0"),
    "no file": (["train", "none.yaml"], "none.yaml must be a readable file"),
    "no data": (
        ["train", "--data", "cifar10", "--data-path", "nowhere"],
        "data path must be a folder that exists, got nowhere",
    ),
    "no run": (["train", "--resume", "."], "must be a run directory"),
    "resume with more": (["train", "--resume", ".", "--seed", "1"], "--resume must stand alone"),
    "unknown norm": (["lipschitz", "--input-norm", "l7"], "--input-norm must be one of"),
    "bad radius": (["lipschitz", "--radius", "far"], "--radius must be a number of at least 0"),
    "bad input radius": (
        ["lipschitz", "--input-radius", "-1"],
        "--input-radius must be finite and positive, got -1",
    ),
    "no points": (["lipschitz", "--points", "0"], "--points must be at least 1, got 0"),
    "no such device": (
        ["train", "--set", "device=cuda:63"],
        "device must be a device that torch finds",
    ),
    "other data": (
        ["lipschitz", "--data", "mnist"],
        "data must be one of digits, cifar10, got 'mnist'",
    ),
    "sizes": (
        ["train", "--set", "network.modules.0.in_features=10"],
        "must be 64 for the data set digits",
    ),
    "spaces": (["budget", "--set", "network.modules.0.out_features=9"], "must meet in one space"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_callers_mistake_is_one_line_and_code_two(
    name: str, refusal: Callable[[list[str]], str]
) -> None:
    arguments, text = MISTAKES[name]
    assert text in refusal(arguments)
    assert not Path("runs").exists()


def test_debug_shows_the_traceback() -> None:
    for arguments in (["--debug", "train", "none.yaml"], ["train", "none.yaml", "--debug"]):
        with pytest.raises(SpecError):
            main(arguments)


def test_usage_errors_are_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert main(["budget", "--foo"]) == 2
    assert "train" in capsys.readouterr().err


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("modular-manifolds 0.2")
    for arguments in (["--help"], ["train", "-h"], ["budget", "-h"], ["lipschitz", "-h"]):
        assert main(arguments) == 0
        assert "Usage" in capsys.readouterr().out


@pytest.mark.usefixtures("blank_pictures")
def test_resuming_a_finished_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--out", "run", *QUICK]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", "run"]) == 0
    assert "Nothing to do: all 6 steps of this run are done." in capsys.readouterr().out


def test_memory_that_is_used_up_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("modular_manifolds.training.loop.start", no_memory)
    assert main(["train", "--out", "run"]) == 2
    assert capsys.readouterr().err.startswith("error: the memory of this machine must be large en")
