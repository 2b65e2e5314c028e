"""No terminal, encoding, locale or reader that leaves stops a command."""

from __future__ import annotations

import ast
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import QUICK, program
from long_tests import mostly_long

from modular_manifolds.cli.console import visible
from modular_manifolds.cli.main import main

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_a_reader_that_leaves_is_not_complained_about(elsewhere: Path) -> None:
    """At the end of a process Python writes once more; `test_a_reader_that_leaves_stops_no_command` asks each command."""
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


def test_no_line_but_a_live_one_is_wrapped() -> None:
    """A program that reads the output finds each line whole, however narrow the terminal is."""
    for file in (ROOT / "modular_manifolds/cli").glob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(call, ast.Call)
                and call.args
                and ast.unparse(call.func).endswith("console.print")
            ):
                settings = {each.arg for each in call.keywords}
                assert settings & {"soft_wrap", "crop"}, f"{file}:{call.lineno}"


def test_a_sample_cannot_command_the_terminal() -> None:
    """A network that learned from a log with colours writes their escape sequences."""
    assert visible("a\tb\n\x1b[31mred\x07\x9b2J\x7f\r") == "a\tb\n␛[31mred␇\ufffd2J␡␍"
    assert visible("日本語 é 😀") == "日本語 é 😀"


@pytest.mark.long
def test_the_locale_of_the_terminal_stops_no_command(elsewhere: Path) -> None:
    """A process of its own, whose streams and files are in ASCII unless the code says otherwise."""
    code = (
        "import sys; from modular_manifolds.cli.main import main\n"
        # To draw pictures takes most of the time.
        "from modular_manifolds.training import figures; figures.as_svg = lambda _: '<svg/>'\n"
        "before = sys.stdout.errors\n"
        "codes = [main(each.split()) for each in ('train --steps 1 -o run', 'budget --set \\u03c3=1')]\n"
        "assert sys.stdout.errors == before\n"
        "sys.exit(codes != [0, 2])"
    )
    locale = {"OMP_NUM_THREADS": "1", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
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


TERMINALS = [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}]


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


@pytest.mark.usefixtures("blank_pictures")
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


@pytest.mark.parametrize(
    ("width", "terminal"),
    mostly_long(
        [(width, terminal) for width in ("20", "1", "0", "wide") for terminal in TERMINALS],
        usual=4,
        several=True,
    ),
)
def test_no_terminal_is_too_narrow_or_too_plain(
    width: str, terminal: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"COLUMNS": width, **terminal}.items():
        monkeypatch.setenv(name, value)
    for arguments in (["budget"], ["--help"], ["train", "--help"]):
        assert main(arguments) == 0
    assert main(["budget", "--set", "optimizer.lrr=1"]) == 2
    assert main(["no-command"]) == 2


@pytest.mark.parametrize(
    "name",
    mostly_long(
        ["[/bold]", "[red]", "a b", ":smile:", "größe σ", "\udcff"],
        usual=lambda name: name in ("[/bold]", ":smile:", "\udcff"),
    ),
)
def test_names_are_printed_as_they_are(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brackets are no markup and colons no emoji. A name on Linux may be no text at all."""
    monkeypatch.setenv("COLUMNS", "200")
    Path(name).parent.mkdir(exist_ok=True)
    assert main(["lipschitz", "--json", name]) == 0
    assert f"report    {name.encode(errors='replace').decode()}" in capsys.readouterr().out
    assert json.loads(Path(name).read_text(encoding="utf-8"))["lipschitz"]["declared"] > 0
