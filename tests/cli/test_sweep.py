"""Sweeps: every point is run once, kept, and found again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

import modular_manifolds as mm
from modular_manifolds.cli.main import main
from modular_manifolds.errors import DataError, SpecError
from modular_manifolds.training.data import read_data, resolve_with_data
from modular_manifolds.training.session import Session
from modular_manifolds.training.sweep import Arm, Plan, Results, run_points, summaries
from modular_manifolds.training.sweep.outcome import Outcome, outcome
from modular_manifolds.training.sweep.plan import Point, Size, parse_sizes
from modular_manifolds.training.sweep.results import Result

TINY = [
    "sweep",
    *("--set", "steps=8", "--set", "model.name=residual-mlp", "--set", "batch_size=32"),
    *("--over", "model.width=4,8", "--arm", "steepest-descent", "--arm", "adamw"),
    *("--lr", "2^0..2^1", "--arm-lr", "adamw=2^-6..2^-5.5"),
]
"""2 sizes × (3 + 2) rates."""


def rows(folder: Path) -> list[dict[str, Any]]:
    """The runs in `sweep.json`, without their times."""
    found = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["runs"]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def quiet(result: Result, left: int) -> None:
    del result, left


# Other processes run the same points, with the seeds of the run.
pytestmark = pytest.mark.seeds_as_written


@pytest.fixture(scope="module")
def run() -> tuple[mm.RunSpec, Any]:
    spec = mm.RunSpec().override(["steps=15", "model.hidden=[8]", "batch_size=16"])
    data = read_data(spec.data)
    return resolve_with_data(spec, data), data


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    assert main([*TINY, "-o", str(folder)]) == 0
    return folder


class TestOutcome:
    def test_it_is_what_a_session_finds(self, run: tuple[mm.RunSpec, Any]) -> None:
        spec, data = run
        # A session takes the caller's number of threads; another number rounds differently.
        spec = spec.override([f"threads={torch.get_num_threads()}"])
        session = Session(spec, data)
        losses = [session.step().loss for _ in range(15)]
        found = outcome(spec, data)
        assert found.training_loss == fmean(losses[-2:])
        assert found.validation_loss == session.evaluate().test_loss
        assert found.diverged is None
        assert found.seconds > 0

    def test_divergence_is_a_value_with_its_reason(self, run: tuple[mm.RunSpec, Any]) -> None:
        spec, data = run
        wild = spec.override(["optimizer.name=adamw", "optimizer.lr=1e30"])
        found = outcome(wild, data)
        assert (found.validation_loss, found.training_loss) == (None, None)
        assert found.diverged is not None
        assert found.diverged.startswith("the loss at step ")


class TestSweep:
    def test_every_point_is_run(self, whole: Path) -> None:
        found = rows(whole)
        assert len(found) == 10
        assert {(row["arm"], *row["size"]) for row in found} == {
            (arm, f"model.width={width}")
            for arm in ("steepest-descent", "adamw")
            for width in (4, 8)
        }
        assert {row["lr"] for row in found if row["arm"] == "adamw"} == {2.0**-6, 2.0**-5.5}
        assert all(row["diverged"] is None and row["validation_loss"] > 0 for row in found)
        assert len(list((whole / "runs").iterdir())) == 10
        environment = json.loads((whole / "sweep.json").read_text())["environment"]
        assert environment["threads"] == 1
        assert "<svg" in (whole / "sweep.svg").read_text(encoding="utf-8")

    def test_a_point_is_the_run_it_says(self, whole: Path) -> None:
        row = rows(whole)[-1]
        spec = mm.RunSpec().override(
            [
                *("steps=8", "batch_size=32", "model.name=residual-mlp", "model.width=8"),
                *("optimizer.name=adamw", f"optimizer.lr={row['lr']!r}"),
            ]
        )
        assert row["size"] == ["model.width=8"]
        data = read_data(spec.data)
        assert (
            row["validation_loss"] == outcome(resolve_with_data(spec, data), data).validation_loss
        )

    @pytest.mark.usefixtures("blank_pictures")
    def test_a_sweep_that_was_stopped_goes_on(
        self,
        whole: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        begun = 0

        def stopped(spec: mm.RunSpec, data: Any) -> Outcome:
            nonlocal begun
            begun += 1
            if begun == 4:
                raise KeyboardInterrupt
            return outcome(spec, data)

        place = "modular_manifolds.training.sweep.rounds.outcome"
        command = [*TINY, "-o", str(tmp_path / "s")]
        with monkeypatch.context() as patch:
            patch.setattr(place, stopped)
            assert main(command) == 130
        assert "Stopped after 3 runs, which are kept." in capsys.readouterr().out
        assert not (tmp_path / "s" / "sweep.json").exists()
        begun = 4
        monkeypatch.setattr(place, stopped)
        assert main(command) == 0
        assert begun == 4 + 7
        assert rows(tmp_path / "s") == rows(whole)

    def test_a_finished_sweep_runs_nothing_and_a_wider_one_what_is_new(
        self, whole: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = mm.RunSpec.from_file(whole / "run.yaml")
        kept = Results(whole)
        sizes = parse_sizes(["model.width=4,8"])
        seen: list[float] = []

        def counted(spec: mm.RunSpec, data: Any) -> Outcome:
            seen.append(spec.optimizer.lr)
            return outcome(spec, data)

        monkeypatch.setattr("modular_manifolds.training.sweep.rounds.outcome", counted)
        run_points(Plan(run, sizes, {Arm("steepest-descent"): (0, 2)}), kept, watch=quiet)
        assert seen == []
        results = run_points(
            Plan(run, sizes, {Arm("steepest-descent"): (-1, 2)}), kept, watch=quiet
        )
        assert seen == [2.0**-0.5] * 2
        assert [each.point.notch for each in results] == [-1, 0, 1, 2] * 2

    @pytest.mark.long
    def test_another_process_finds_the_same(self, whole: Path, tmp_path: Path) -> None:
        run = mm.RunSpec.from_file(whole / "run.yaml")
        kept = Results(tmp_path / "s")
        kept.open(run)
        plan = Plan(run, parse_sizes(["model.width=4"]), {Arm("adamw"): (-12, -12)})
        found = [each.row() for each in run_points(plan, kept, jobs=2, watch=quiet)]
        for row in found:
            row.pop("seconds")
        assert found == rows(whole)[6:7]

    def test_a_refined_grid_tries_less_and_looks_beside_the_best(self, tmp_path: Path) -> None:
        run = mm.RunSpec().override(["steps=4", "model.hidden=[4]", "batch_size=16"])
        kept = Results(tmp_path / "s")
        kept.open(run)
        arm, sizes = Arm("steepest-descent"), parse_sizes(["model.hidden=[4],[12]"])
        plan = Plan(run, sizes, {arm: (-8, 6)}, "refined")
        results = run_points(plan, kept, watch=quiet)
        (summary,) = summaries(results, [arm], sizes)
        for curve in summary.curves:
            assert curve.best is not None
            assert set(range(-8, 7, 2)) < set(curve.losses)
            assert len(curve.losses) <= 8 + 3
            inside = {curve.best - 1, curve.best + 1} & set(range(-8, 7))
            assert inside <= set(curve.losses)
        assert summary.transfer_cost is not None

    def test_another_run_in_the_same_folder_is_refused(self, whole: Path) -> None:
        with pytest.raises(DataError) as caught:
            Results(whole).open(mm.RunSpec.from_file(whole / "run.yaml").override(["steps=9"]))
        assert str(caught.value) == (
            f"--out {whole} must be a new folder or hold a sweep of the same run, "
            "got another steps. Choose another folder, or take the change back."
        )

    def test_a_folder_with_other_files_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(DataError, match="--out must be a new folder or hold a sweep"):
            Results(tmp_path).open(mm.RunSpec())

    def test_a_damaged_result_is_refused(self, tmp_path: Path) -> None:
        kept = Results(tmp_path / "s")
        kept.open(mm.RunSpec())
        kept.keep(mm.RunSpec(), Point(Size(), Arm("adamw"), 0, 0), Outcome(1.0, 1.0, None, 0.0))
        (file,) = (tmp_path / "s" / "runs").iterdir()
        file.write_text("{")
        with pytest.raises(DataError, match="must be what a sweep wrote"):
            kept.find(mm.RunSpec())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--over", "model.depth=2"], "model.depth must be a known key"),
            (["--arm", "adam"], "optimizer.name must be a known name, got 'adam'."),
            (["--arm", "adamw,optimizer.momentum=0.5"], "optimizer.momentum must be a known key"),
            (["--arm-lr", "adamw=2^0..2^1"], "--arm-lr must begin with one of steepest-descent"),
            (["--lr", "0.1..1"], "--lr must be a range of powers of two"),
            (["--grid", "fine"], "--grid must be full, coarse or refined, got 'fine'."),
        ],
    )
    def test_mistakes_are_found_before_the_first_run(
        self,
        arguments: list[str],
        message: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert main(["sweep", *arguments, "-o", str(tmp_path / "s")]) == 2
        assert message in capsys.readouterr().err
        assert not list((tmp_path / "s" / "runs").glob("*"))

    @pytest.mark.usefixtures("blank_pictures")
    def test_the_summary_is_printed(self, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([*TINY, "-o", str(whole)]) == 0
        out = capsys.readouterr().out
        assert "Best learning rates" in out
        assert "at the edge" in out
        assert "adamw: the best rate moves by " in out
        assert (
            "of the loss at width=8; a best rate at the edge of the grid makes this uncertain."
            in out
        )


def test_a_model_that_does_not_fit_the_data_is_refused_before_the_first_run(tmp_path: Path) -> None:
    run = mm.RunSpec(network=mm.NetworkSpec.from_module(mm.Linear(3, 10)))
    kept = Results(tmp_path / "s")
    kept.open(run)
    with pytest.raises(SpecError, match="must be 64 for the data set digits"):
        run_points(Plan(run, (Size(),), {Arm("adamw"): (0, 0)}), kept, watch=quiet)


@pytest.mark.usefixtures("blank_pictures")
def test_a_sweep_over_a_language_model(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, that is the question. " * 40, encoding="utf-8")
    folder = tmp_path / "s"
    command = [
        *("sweep", "--data", "text", "--data-path", str(text), "--device", "cpu"),
        *("--set", "data.context=16", "--set", "steps=30", "--set", "batch_size=8"),
        *("--set", "model.heads=2", "--set", "model.depth=1", "--over", "model.width=8"),
        *("--arm", "steepest-descent", "--arm", "muon", "--lr", "2^4..2^4"),
        *("--arm-lr", "muon=2^-6..2^-6", "-o", str(folder)),
    ]
    assert main(command) == 0
    found = rows(folder)
    assert [row["arm"] for row in found] == ["steepest-descent", "muon"]
    assert all(0 < row["validation_loss"] < math.log(30) for row in found)
