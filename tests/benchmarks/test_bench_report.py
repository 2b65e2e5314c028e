"""The report and the command of the benchmarks say all of it."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from modular_manifolds_bench import (
    BENCHES,
    Environment,
    Report,
    Row,
)
from modular_manifolds_bench.report import amount, cells

from modular_manifolds.cli.main import main
from modular_manifolds.errors import DataError


def test_a_report_survives_json_and_shows_what_is_missed(tmp_path: Path) -> None:
    report = Report(
        Environment.current(threads=2),
        "digits",
        1.5,
        (
            Row(
                "a",
                "met",
                ours=0.002,
                theirs=0.004,
                ratio=0.5,
                low=0.4,
                high=0.6,
                bar="≤ 1",
                met=True,
            ),
            Row("a", "missed", unit="B", ours=3 * 2**20, bar="≤ 1", met=False, note="a note"),
            Row("b", "no bar", unit="", ours=1e-7),
        ),
    )
    assert Report.from_json(report.to_json()) == report
    path = tmp_path / "report.json"
    report.write(path)
    assert Report.from_json(path.read_text(encoding="utf-8")) == report
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]
    assert [row.what for row in report.missed] == ["missed"]
    assert cells(report.rows) == [
        ("met", "2 ms", "4 ms", "0.5 [0.4, 0.6]", "≤ 1", "yes"),
        ("missed (a note)", "3 MiB", "–", "–", "≤ 1", "no"),
        ("no bar", "1e-07", "–", "–", "–", "–"),
    ]
    assert json.loads(report.to_json())["environment"]["torch"] == torch.__version__
    for broken in ("{", "{}", '{"rows": [{"x": 1}], "environment": {}}'):
        with pytest.raises(DataError, match="report must be a file of"):
            Report.from_json(broken)
    with pytest.raises(DataError, match="--json must be a file that can be written"):
        report.write(tmp_path / "nowhere" / "report.json")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2.0, "s", "2 s"),
        (3e-5, "s", "30 µs"),
        (12.0, "B", "12 B"),
        (0.0, "", "0"),
        (None, "s", "–"),
    ],
)
def test_amounts_read_well(value: float | None, unit: str, text: str) -> None:
    assert amount(value, unit) == text


def test_the_command_prints_the_bars_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "bench.json"
    before = torch.get_num_threads()
    said = ["bench", "--only", "drift", "--drift-steps", "50", "--threads", "1"]
    assert main([*said, "--json", str(path)]) == 0
    out = capsys.readouterr().out
    for text in ("Benchmarks", "float32", "bfloat16", "machine", "bars", "drift\n", "≤ 1e-05"):
        assert text in out
    report = Report.from_json(path.read_text(encoding="utf-8"))
    assert [row.bench for row in report.rows] == ["drift", "drift"]
    assert report.environment.threads == 1
    assert torch.get_num_threads() == before


def test_a_missed_bar_is_named_and_the_exit_code_is_zero(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        BENCHES, "drift", lambda _: iter([Row("drift", "a bar out of reach", bar="≤ 0", met=False)])
    )
    assert main(["bench", "--only", "drift"]) == 0
    out = capsys.readouterr().out
    assert "missed    1 of 1 bars" in out
    assert "\n  a bar out of reach" in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--only", "speed"], "--only must be one of manifold-muon, dual-ascent"),
        (["--rounds", "0"], "rounds must be at least 1"),
        (["--drift-steps", "0"], "drift_steps must be at least 1"),
        (["--threads", "0"], "threads must be a positive whole number"),
        (["--only", "manifold-muon", "--data-path", "nowhere"], "data path must be a folder"),
    ],
)
def test_a_callers_mistake_is_one_line(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {text}")
    assert captured.err.count("\n") == 1


def test_the_help_of_only_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in BENCHES)


COMMAND = importlib.import_module("modular_manifolds.cli.bench")


def test_the_command_finds_the_folder_beside_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(Path(__file__).parents[2] / "benchmarks")
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != folder])
    monkeypatch.setitem(BENCHES, "drift", lambda _: iter(()))
    assert main(["bench", "--only", "drift"]) == 0
    assert sys.path.count(folder) == 1
    assert main(["bench", "--only", "drift"]) == 0
    assert sys.path.count(folder) == 1


def test_an_installed_package_says_where_the_benchmarks_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = tmp_path / "modular_manifolds" / "cli" / "bench.py"
    monkeypatch.setattr(COMMAND, "__file__", str(installed))
    assert main(["bench"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: bench must run in the repository, which has the folder benchmarks/"
    )
    assert "pip install -e '.[bench]'" in error
