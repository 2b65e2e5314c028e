"""The command line as a new user meets it."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import safetensors.torch
import torch
import yaml
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.cli.main import main
from modular_manifolds.errors import SpecError
from modular_manifolds.specs import NetworkSpec
from modular_manifolds.specs.network import NAMES
from modular_manifolds.training.run_directory import RunDirectory
from modular_manifolds.training.sweep import Results

QUICK = ["--set", "epochs=1", "--set", "batch_size=256"]


def program(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """The installed program in a process of its own."""
    code = "import sys; from modular_manifolds.cli.main import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs are written below the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_baselines_train_and_say_what_is_not_guaranteed(
    optimizer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--optimizer", optimizer, "--out", "run", *QUICK]) == 0
    assert "not guaranteed: the weights are off their manifolds" in capsys.readouterr().out


def test_a_run_file_with_changes(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.yaml").write_text("optimizer: {name: steepest-descent, lr: 0.2}\nepochs: 7\n")
    assert main(["train", "my.yaml", "--set", "optimizer.lr=0.3", "--out", "run", *QUICK]) == 0
    written = yaml.safe_load((elsewhere / "run" / "run.yaml").read_text())
    assert (written["optimizer"]["lr"], written["epochs"]) == (0.3, 1)
    assert "epoch 1/1" in capsys.readouterr().out


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


def test_lipschitz_of_a_run_and_of_a_declaration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--out", "run", *QUICK]) == 0
    capsys.readouterr()
    assert main(["lipschitz", "run", "--input-norm", "linf"]) == 0
    assert "from linf to l2: declared 8, certified 8" in capsys.readouterr().out
    assert main(["lipschitz"]) == 0
    assert "declared 1, certified 1" in capsys.readouterr().out


@pytest.mark.parametrize("attack", ["--attack", "--no-attack"])
def test_lipschitz_certifies_the_predictions_of_a_run(
    attack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--out", "run", *QUICK]) == 0
    capsys.readouterr()
    options = ["--points", "60", "--radius", "0.01", "--radius", "1/8", attack]
    assert main(["lipschitz", "run", "--data", "digits", *options, "--json", "found.json"]) == 0
    out = capsys.readouterr().out
    rows = [line.split("│") for line in out.splitlines() if "/255 " in line or " 0.01 " in line]
    assert [row[0].strip() for row in rows] == ["0.01", "36/255", "72/255", "108/255"]
    assert len(rows[0]) == (3 if attack == "--attack" else 2)
    assert ("no certified point fell" in out) == (attack == "--attack")
    assert "60 points; radii in pixels in [0, 1]; a step of 1" in out
    assert "declared 1, certified 1" in out
    found = json.loads(Path("found.json").read_text())
    assert found["lipschitz"]["declared"] == pytest.approx(1.0)
    assert [row["radius"] for row in found["robustness"]["rows"]][:2] == [0.01, 1 / 8]
    assert len(found["robustness"]["radii"]) == 60
    assert found["robustness"]["clean"] >= found["robustness"]["rows"][0]["certified"]


def test_predictions_are_attacked_unless_told_otherwise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["lipschitz", "--points", "20"]) == 0
    assert "attack: projected gradient on the margin" in capsys.readouterr().out


def test_lipschitz_says_where_a_bound_is_missing_and_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("run.yaml").write_text(
        "network: {type: series, modules: [{type: linear, in_features: 64, out_features: 10, "
        "manifold: euclidean, norm: spectral}, relu]}"
    )
    assert main(["lipschitz", "run.yaml", "--no-attack", "--json", "found.json"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "weights of 0 are on an unbounded manifold" in out
    assert "put them on Stiefel" in out
    assert json.loads(Path("found.json").read_text())["lipschitz"]["declared"] is None


class Square(mm.Bond):
    """`x²/2`: the bound depends on the size of the input."""

    def lipschitz_within(self, radius: float) -> float:
        return radius

    def forward(self, x: Tensor) -> Tensor:
        return x.square() / 2


def test_lipschitz_takes_the_size_of_inputs_where_a_bound_depends_on_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it nothing is certified: the exit code is 0, and the output names the module and the option."""
    net = mm.Linear(64, 32, manifold=mm.Stiefel(radius=2.0)) >> Square() >> mm.Linear(32, 10)
    monkeypatch.setattr(NetworkSpec, "build_aside", lambda *_: net)
    monkeypatch.setitem(NAMES, Square, "identity")
    assert main(["lipschitz", "--json", "found.json"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "no bound holds at 1 (Square): its bound depends on the size of its input" in out
    assert "--input-radius" in out
    assert json.loads(Path("found.json").read_text())["lipschitz"]["certified"] is None
    assert main(["lipschitz", "--input-radius", "3", "--json", "found.json"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "declared 12, certified 12" in out
    assert "for inputs of norm at most 3" in out
    assert json.loads(Path("found.json").read_text())["lipschitz"]["radius"] == 3


def test_lipschitz_draws_a_figure(capsys: pytest.CaptureFixture[str]) -> None:
    radius = ["--input-norm", "linf", "--input-radius", "2"]
    assert main(["lipschitz", *radius, "--figure", "bounds.svg"]) == 0
    assert "figure bounds.svg" in " ".join(capsys.readouterr().out.split())
    picture = Path("bounds.svg").read_text()
    assert picture.startswith("<?xml")
    assert "</svg>" in picture
    assert main(["lipschitz", "--figure", "other.svg"]) == 0
    assert Path("other.svg").read_text() != picture
    capsys.readouterr()
    assert main(["lipschitz", "--figure", "no/folder.svg"]) == 2
    assert "--figure must be a file that can be written" in capsys.readouterr().err


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
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, text = MISTAKES[name]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert text in captured.err
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
    assert capsys.readouterr().out.startswith("modular-manifolds 0.1")
    for arguments in (["--help"], ["train", "-h"], ["budget", "-h"], ["lipschitz", "-h"]):
        assert main(arguments) == 0
        assert "Usage" in capsys.readouterr().out


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


@pytest.mark.seeds_as_written
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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


def test_resuming_a_finished_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--out", "run", *QUICK]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", "run"]) == 0
    assert "Nothing to do: all 6 steps of this run are done." in capsys.readouterr().out


def test_a_reader_that_leaves_is_not_complained_about(elsewhere: Path) -> None:
    process = program("schema", "run", cwd=elsewhere)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait(timeout=60)


def test_a_row_of_a_table_is_one_line_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    assert main(["budget"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(" 0.weight")]
    assert len(rows) == 1
    assert rows[0].rstrip().endswith("0.03333")


def test_the_locale_of_the_terminal_stops_no_command(elsewhere: Path) -> None:
    """A process of its own, whose streams and files are in ASCII unless the code says otherwise."""
    code = (
        "import sys; from modular_manifolds.cli.main import main\n"
        "before = sys.stdout.errors\n"
        "codes = [main(each.split()) for each in ('train --steps 1 -o run', 'budget --set \\u03c3=1')]\n"
        "assert sys.stdout.errors == before\n"
        "sys.exit(codes != [0, 2])"
    )
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        capture_output=True,
        check=False,
        env={**os.environ, **locale},
    )
    assert ran.returncode == 0, ran.stderr
    out = ran.stdout.decode("ascii")
    for text in ("0.weight", "Guarantees: every weight", "report.html"):
        assert text in out
    assert ran.stderr.startswith(b"error: ")
    assert ran.stderr.count(b"\n") == 1


class Narrow(io.TextIOWrapper):
    """A stream that writes at once, and refuses what its encoding lacks."""

    def __init__(self, raw: io.BytesIO, encoding: str = "ascii") -> None:
        super().__init__(raw, encoding=encoding, errors="strict", write_through=True)


COMMANDS = [
    ["budget"],
    ["lipschitz", "--points", "5", "--no-attack"],
    ["schema"],
    ["--help"],
    ["sweep", "--help"],
    ["--version"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_what_an_encoding_lacks_is_replaced(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    lines = len(capsys.readouterr().out.splitlines())
    raw = io.BytesIO()
    stream = Narrow(raw)
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(arguments) == 0
    assert sys.stdout is stream
    assert stream.errors == "strict"
    assert len(raw.getvalue().decode("ascii").splitlines()) == lines


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "utf-16", "idna", "undefined"])
def test_any_encoding_will_do(
    encoding: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Among them one of host names, and one that takes nothing at all."""
    raw = io.BytesIO()
    stream = Narrow(raw, encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["budget"]) == 0
    assert stream.encoding == encoding
    assert capsys.readouterr().err == ""
    assert "0.weight" in raw.getvalue().decode(
        "ascii" if encoding in ("idna", "undefined") else encoding
    )


class Unread(io.BytesIO):
    """A pipe whose reader has left, or a full disk."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.writes = 0

    def write(self, data: object) -> int:
        del data
        self.writes += 1
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_reader_that_leaves_stops_no_command(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = Unread(errno.EPIPE)
    monkeypatch.setattr(sys, "stdout", Narrow(pipe))
    assert main(arguments) == 0
    assert pipe.writes == 1
    assert capsys.readouterr().err == ""


def test_a_training_whose_reader_leaves_goes_on_to_its_end(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Narrow(Unread(errno.EPIPE)))
    assert main(["train", "--out", "run", *QUICK]) == 0
    assert (elsewhere / "run" / "report.html").is_file()


def test_a_disk_that_is_full_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Narrow(Unread(errno.ENOSPC)))
    assert main(["budget"]) == 2
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("width", ["20", "1", "0", "wide"])
@pytest.mark.parametrize("terminal", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}])
def test_no_terminal_is_too_narrow_or_too_plain(
    width: str, terminal: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"COLUMNS": width, **terminal}.items():
        monkeypatch.setenv(name, value)
    for arguments in (["budget"], ["--help"], ["train", "--help"]):
        assert main(arguments) == 0
    assert main(["budget", "--set", "optimizer.lrr=1"]) == 2
    assert main(["no-command"]) == 2


@pytest.mark.parametrize("name", ["[/bold]", "[red]", ":smile:", "größe σ", "a b", "\udcff"])
def test_names_are_printed_as_they_are(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brackets are no markup and colons no emoji. A name on Linux may be no text at all."""
    monkeypatch.setenv("COLUMNS", "200")
    Path(name).parent.mkdir(exist_ok=True)
    assert main(["lipschitz", "--json", name]) == 0
    assert f"report    {name.encode(errors='replace').decode()}" in capsys.readouterr().out
    assert json.loads(Path(name).read_text(encoding="utf-8"))["lipschitz"]["declared"] > 0


SHORT = ["--steps", "4", "--set", "model.hidden=[8]", "--optimizer", "adamw"]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of few steps that nobody stopped."""
    folder = tmp_path_factory.mktemp("short")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "--out", "run", *SHORT]) == 0
    return folder / "run"


@pytest.mark.parametrize("setting", ["dtype", "inference", "no gradients", "autocast", "device"])
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
    with RunDirectory(elsewhere / "run").held("--out"):
        assert main(["train", "--resume", "run"]) == 2
    assert (
        "--resume must be a folder in which no other process works, got run."
        in capsys.readouterr().err
    )
    sweep = ["sweep", "--set", "steps=1", "--lr", "2^-1..2^-1", "-o", "s"]
    assert main(sweep) == 0
    with Results(elsewhere / "s").held():
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


def test_memory_that_is_used_up_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_memory(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("modular_manifolds.training.loop.start", no_memory)
    assert main(["train", "--out", "run"]) == 2
    assert capsys.readouterr().err.startswith("error: the memory of this machine must be large en")
