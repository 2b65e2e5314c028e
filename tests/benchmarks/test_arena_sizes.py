"""The arena's studies of sizes: tables and curves of best rates, and refused counts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from arena.cells import Effort
from arena.command import main
from arena.result import Result
from arena.settings import Settings
from arena.studies import Choice, length_study, width_study
from arena.transfer import Transfer

EFFORT = Effort(runs=9, seeds=1, tuning_seeds=2)


def look(settings: Settings) -> Result:
    """The best rate falls by a notch if the steps double, and does not depend on the width."""
    best = math.sqrt(200 / settings.steps)
    return Result(2 + math.log2(settings.values[0] / best) ** 2)


def row(table: Transfer) -> list[str]:
    return str(table).splitlines()[-1].strip("| ").split(" | ")


def test_a_study_of_lengths_has_the_best_rates_and_the_losses_at_four_times_them() -> None:
    (table,) = length_study(Choice(["gpt", "mlp-digits"], ["stiefel"], EFFORT, None, "cpu"), look)
    assert row(table) == [
        "budget, Stiefel",
        "2^0, 2^0: 2.000",
        "2^-0.5, 2^0: 2.000",
        "2^-1, 2^0: 2.000",
        "2^-1.5, 2^0: 2.000",
        "3",
        "112.50 %",
        "3.000, 3.000, 3.000, 3.000",
    ]
    assert "means of 2 seeds" in str(table)


def test_a_study_of_widths_has_a_curve_for_each_width() -> None:
    (table,) = width_study(Choice(["gpt"], ["adamw"], EFFORT, 200, "cpu"), look)
    assert row(table)[-2:] == ["0", "0.00 %"]
    (panel,) = table.panels()
    assert panel.title == "AdamW"
    assert list(panel.curves) == [f"width {width}" for width in (16, 32, 64, 128, 256)]
    assert all(losses[0.0] == 2.0 for losses in panel.curves.values())
    assert all(losses[-1.0] == 3.0 for losses in panel.curves.values())
    assert table.picture() == table.picture()
    assert table.picture().startswith("<")


def test_tables_and_curves_of_nothing_can_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["--table", "--out", str(tmp_path / "none"), "--tasks", "gpt", "--arms", "adamw"]
    main([*said, "--studies", "width", "length", "--figures", str(tmp_path / "curves")])
    assert "| AdamW | – |" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "curves").iterdir()}
    assert names == {"gpt_width.svg", "gpt_steps.svg"}


@pytest.mark.parametrize("option", ["--runs", "--seeds", "--tuning-seeds", "--steps"])
@pytest.mark.parametrize("count", ["0", "-1", "1.5", "many"])
def test_a_count_below_one_is_refused_in_words(
    option: str, count: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([f"{option}={count}"])
    assert f"must be a whole number of 1 or more, got '{count}'" in capsys.readouterr().err


def test_a_trial_takes_the_effort_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["--steps", "1", "--runs", "1", "--tasks", "mlp-digits", "--arms", "adamw"]
    main(["--quick", *said, "--out", str(tmp_path)])
    assert "| 1 of 1, 1 |" in capsys.readouterr().out
