"""Arguments that a stranger tries: each wrong one is refused in one line, and nothing is left behind or ignored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modular_manifolds.cli.main import main
from modular_manifolds.specs.whole import check_writable
from modular_manifolds.training.run_directory import RunDirectory

SWEEP = ["sweep", "--set", "steps=2", "--lr", "2^-3..2^-3", "-o", "s"]
MARGIN = ["--data", "text", "--data-path", "prose.txt", "--set", "loss.name=margin"]

MISTAKES = {
    # Empty arguments would become the current folder, or null.
    "empty path": (["train", "--out", ""], "--out must not be empty"),
    "empty after =": (["sweep", "--out="], "--out must not be empty"),
    "empty run file": (["budget", ""], "an argument must not be empty"),
    "empty name": (["train", "--optimizer", ""], "--optimizer must not be empty"),
    # The parser's own errors.
    "no option": (["train", "--batch-size", "5"], "--batch-size must be an option of "),
    "no option of bench": (["bench", "--foo"], "--foo must be an option of "),
    "no command": (["trian"], "Did you mean 'train'"),
    "no number": (["train", "--epochs", "two"], "'--epochs'"),
    "no value": (["train", "--epochs"], "'--epochs' requires an argument"),
    "one too many": (["budget", "a", "b"], "unexpected extra argument"),
    "no kind": (["schema", "foo"], "'foo' is not one of 'run', 'network'"),
    # Values of which one would have no effect.
    "a key twice": (["train", "--seed", "1", "--set", "seed=2"], "'seed' twice"),
    "epochs and steps": (["train", "--epochs", "1", "--steps", "2"], "in the place of epochs"),
    "an arm twice": ([*SWEEP, "--arm", "adamw", "--arm", "adamw"], "'adamw' twice"),
    "a rate twice": (
        [*SWEEP, "--arm-lr", "muon=2^0..2^1", "--arm-lr", "muon=2^1..2^2"],
        "--arm-lr must have each arm once, got 'muon' twice",
    ),
    "a size twice": ([*SWEEP, "--over", "epochs=4,4"], "--over epochs must have each value once"),
    "a size's key twice": ([*SWEEP, "--over", "epochs=1", "--over", "epochs=2"], "'epochs' twice"),
    "a size in an arm": (
        [*SWEEP, "--over", "epochs=1,2", "--arm", "adamw,epochs=3"],
        "--arm must not set a key of --over, got 'epochs'",
    ),
    "seeds as sizes": ([*SWEEP, "--over", "seed=1,2"], "Write --seeds for several"),
    "data as sizes": ([*SWEEP, "--over", "data.context=4,8"], "must not set data"),
    "rates as sizes": ([*SWEEP, "--over", "optimizer.lr=1,2"], "--lr or --arm-lr"),
    "optimisers as sizes": ([*SWEEP, "--over", "optimizer=1"], "must not set optimizer.lr"),
    "a rate in an arm": ([*SWEEP, "--arm", "adamw,optimizer.lr=1"], "must not set optimizer.lr"),
    "a rate in the run": ([*SWEEP, "--set", "optimizer.lr=1"], "must leave the rate of a sweep"),
    "events": ([*SWEEP, "--set", "tensorboard=true"], "tensorboard must be false in a sweep"),
    # Numbers out of their range.
    "a large batch": (
        ["train", "--set", "batch_size=1439"],
        "batch_size must be at most 1,438, the number of training examples, got 1,439.",
    ),
    "a large batch in a sweep": ([*SWEEP, "--over", "batch_size=8,1439"], "batch_size must be at"),
    "no seeds": ([*SWEEP, "--seeds", "0"], "--seeds must be a positive whole number, got 0"),
    "no jobs": ([*SWEEP, "--jobs", "0"], "--jobs must be from 1 to 256, got 0"),
    "no runs": ([*SWEEP, "--max-runs", "-1"], "--max-runs must be a positive whole number"),
    "a huge rate": ([*SWEEP, "--lr", "2^99..2^99"], "--lr must have exponents from -64 to 64"),
    "no device": ([*SWEEP, "--device", "cuda:63"], "device must be a device that torch finds"),
    # Files of results, which are looked at before the work.
    "a folder": (["lipschitz", "--json", "."], "--json must be a file that can be written, got ."),
    "no folder": (["lipschitz", "--figure", "a/b.svg"], "--figure must be a file that can be"),
    "a device's child": (["lipschitz", "--json", "/dev/null/x"], "--json must be a file that can"),
    "one file for two": (["lipschitz", "--json", "a", "--figure", "a"], "must be another file"),
    "a raster figure": (["lipschitz", "--figure", "a.png"], "--figure must be a file .svg"),
    "bench's report": (["bench", "--json", "."], "--json must be a file that can be written"),
}


@pytest.fixture
def untouched(elsewhere: Path) -> Path:
    (elsewhere / "prose.txt").write_text("ab cd ef gh. " * 200)
    return elsewhere


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
    name: str, untouched: Path, refusal: Callable[[list[str]], str]
) -> None:
    arguments, text = MISTAKES[name]
    assert text in refusal(arguments)
    assert [each.name for each in untouched.iterdir()] == ["prose.txt"]


@pytest.mark.parametrize(
    "arguments", [["train", "--steps", "2", "-o", "r", *MARGIN], [*SWEEP, *MARGIN]]
)
def test_a_run_that_cannot_start_leaves_no_folder(
    arguments: list[str], untouched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder would refuse the run that is mended."""
    assert main(arguments) == 2
    assert "loss.name must be cross-entropy" in capsys.readouterr().err
    assert [each.name for each in untouched.iterdir()] == ["prose.txt"]


def test_a_small_text_has_a_batch_that_it_fills(untouched: Path) -> None:
    from modular_manifolds import RunSpec
    from modular_manifolds.training.data import read_data, resolve_with_data

    spec = RunSpec().override(["data.name=text", f"data.path={untouched / 'prose.txt'}"])
    data = read_data(spec.data)
    assert len(data.train) > 16
    assert resolve_with_data(spec, data).batch_size == 16
    longer = spec.override(["data.context=250"])
    data = read_data(longer.data)
    assert resolve_with_data(longer, data).batch_size == len(data.train) < 16


def test_to_look_whether_a_file_can_be_written_leaves_it_as_it_is(elsewhere: Path) -> None:
    kept = elsewhere / "kept"
    kept.write_text("text")
    for path in (kept, elsewhere / "new", Path("/dev/null")):
        check_writable(path, argument="--json")
    assert kept.read_text() == "text"
    assert [each.name for each in elsewhere.iterdir()] == ["kept"]


def test_a_sweeps_folder_is_no_run(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "s").mkdir()
    (elsewhere / "s" / "run.yaml").write_text("steps: 2\n")
    for arguments in (["train", "--resume", "s"], ["lipschitz", "s"]):
        assert main(arguments) == 2
        assert "s must be a run directory, got a run.yaml without a" in capsys.readouterr().err
    assert main(["train", "-o", "s"]) == 2
    assert "--resume" not in capsys.readouterr().err


ROW = '{"step": 1, "loss": 2.0}'


@pytest.mark.parametrize("damaged", ["\x00\x00", '{"step"', "[1]", "{}"])
def test_damaged_metrics_are_refused_but_for_the_last_line(damaged: str, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.metrics.write_text(f"{ROW}\n{damaged}")
    assert directory.read_metrics() == [json.loads(ROW)]
    directory.metrics.write_bytes(f"{damaged}\n{ROW}\n".encode())
    with pytest.raises(
        ValueError, match=r"metrics.jsonl: line 1 must be a JSON object with a step"
    ):
        directory.read_metrics()


@pytest.mark.parametrize("steps", [(), (1,), (1, 3), (2, 3)])
def test_metrics_without_a_step_of_the_checkpoint_are_refused(
    steps: tuple[int, ...], tmp_path: Path
) -> None:
    directory = RunDirectory(tmp_path)
    directory.metrics.touch()
    for step in steps:
        directory.append_metrics_({"step": step, "loss": 2.0})
    before = directory.metrics.read_bytes()
    missing = min({1, 2, 3} - set(steps))
    with pytest.raises(ValueError, match=f"of the 3 steps .* got none for step {missing}"):
        directory.cut_metrics_(3)
    assert directory.metrics.read_bytes() == before


@pytest.mark.parametrize("change", [{"validation_loss": "x"}, {"training_loss": None}])
def test_a_damaged_loss_of_a_sweep_is_refused(
    change: dict[str, Any], elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(SWEEP) == 0
    (file,) = (elsewhere / "s" / "runs").iterdir()
    content = json.loads(file.read_text())
    content["outcome"].update(change)
    file.write_text(json.dumps(content))
    assert main(SWEEP) == 2
    assert "must be what a sweep wrote, got TypeError. Delete it." in capsys.readouterr().err


def test_lines_of_a_pipe_are_not_wrapped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert main(["budget"]) == 0
    assert main(["lipschitz"]) == 0
    out = capsys.readouterr().out
    assert "\nthe learning rate is a bound on this change\n" in out
    assert "\nfrom l2 to l2: declared 1, certified 1, empirical " in out
    assert "(tightness" in out.splitlines()[-1]
