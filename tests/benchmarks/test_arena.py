"""The arena: runs are kept and gone on from, tables can be printed at any time, and both kinds of arms train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from arena import train as training
from arena.cells import Cell, Effort, repeats, tune
from arena.command import main
from arena.result import Result
from arena.settings import Settings
from arena.store import Store

SAID = ["--tasks", "mlp-digits", "--steps", "2", "--runs", "2", "--seeds", "1"]


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "task": "mlp-digits",
        "arm": "adamw",
        "values": (0.01,),
        "width": 8,
        "depth": 1,
    }
    rest = {"steps": 2, "batch": 4, "seed": 0}
    return Settings(**{**values, **rest, **changes})


def rows(out: str) -> dict[str, list[str]]:
    """The cells of each arm of a Markdown table."""
    lines = [line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("|")]
    return {first: cells for first, *cells in lines[2:]}


def test_an_arena_trains_once_and_prints_at_any_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [*SAID, "--arms", "adamw", "stiefel", "--out", str(tmp_path)]
    main([*both, "--table"])
    assert not list(tmp_path.iterdir())
    assert rows(capsys.readouterr().out)["AdamW"][1] == "–"

    main([*SAID, "--arms", "adamw", "--out", str(tmp_path)])
    first = capsys.readouterr()
    assert "adamw at 0.0039062, seed 0:" in first.err
    assert "stiefel" not in first.err

    main(both)
    second = capsys.readouterr()
    assert "adamw" not in second.err
    assert "stiefel at 1, 1, seed 0:" in second.err
    found = rows(second.out)
    assert found["AdamW"][2] == "1.000"
    _, scale = found["budget, Stiefel"][0].strip("*").split(", ")
    assert found["budget, Stiefel"][5] == f"{2 ** float(scale[2:]):.3g}"
    assert found["budget, Stiefel"][7] == "4 of 4, 1"

    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    main([*both, "--studies", "compare", "default", "--table"])
    third = capsys.readouterr()
    assert third.err == ""
    assert third.out.startswith(second.out.strip())
    # The rate that a user would try first with Stiefel is 1, which tuning has run with another seed.
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_two_rates_have_twice_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*SAID, "--arms", "muon-adamw", "--out", str(tmp_path)])
    cells = rows(capsys.readouterr().out)["torch Muon and AdamW"]
    assert cells[7] == "4 of 4, 1"
    assert "*" in cells[0]


def test_a_run_that_diverges_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "validate", lambda *_: float("nan"))
    main([*SAID, "--arms", "adamw", "--out", str(tmp_path)])
    assert rows(capsys.readouterr().out)["AdamW"][1] == "diverged"


def test_a_run_that_was_interrupted_while_it_was_written_is_missing(tmp_path: Path) -> None:
    store, result = Store(tmp_path), Result(1.5, ((1, 2.0), (2, 1.5)), condition=3.0)
    store.write(settings(), result)
    (file,) = tmp_path.iterdir()
    assert store.read(settings()) == result
    file.rename(file.with_suffix(".part"))
    assert store.read(settings()) is None


def test_every_setting_names_another_file() -> None:
    changes = (
        {"task": "gpt"},
        {"arm": "stiefel"},
        {"values": (0.02,)},
        {"width": 9},
        {"depth": 2},
        {"steps": 3},
        {"batch": 5},
        {"seed": 1},
        {"device": "cuda"},
        {"version": 0},
    )
    keys = [settings().key, *(settings(**each).key for each in changes)]
    assert len(set(keys)) == len(changes) + 1


def test_steps_to_a_target_are_those_of_the_first_point_below_it() -> None:
    result = Result(1.0, ((10, 3.0), (20, 2.0), (30, 1.0)))
    assert [result.steps_to(target) for target in (3.5, 2.0, 1.5, 0.5)] == [10, 20, 30, None]


def test_the_mean_of_the_seeds_of_tuning_decides() -> None:
    """A seed in which the largest rate is lucky does not choose it, and fresh seeds come after those of tuning."""
    losses = {(1, 0): 2.0, (1, 1): 2.0, (2, 0): 1.9, (2, 1): 2.4, (0.5, 0): 2.1, (0.5, 1): 2.1}
    seen: list[int] = []

    def look(wanted: Settings) -> Result:
        seen.append(wanted.seed)
        return Result(losses.get((wanted.values[0], wanted.seed), 3.0))

    cell = Cell("gpt", "stiefel", width=8, depth=1, steps=2, batch=4, device="cpu")
    for seeds, best, fresh in ((1, 2.0, {1, 2}), (2, 1.0, {2, 3})):
        effort = Effort(runs=3, seeds=2, tuning_seeds=seeds)
        tuned = tune(cell, look, effort, rates_only=True)
        assert tuned.values == (best, 1.0)
        seen.clear()
        repeats(cell, tuned.values, look, effort)
        assert set(seen) == fresh
