"""Runs leave a complete directory: metrics, pictures and one report."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_runs import KilledError, Killer, spec, train
from watcher import Watcher

import modular_manifolds as mm
from modular_manifolds.cli.main import main
from modular_manifolds.errors import DataError, SpecError
from modular_manifolds.specs.whole import write_whole
from modular_manifolds.training import figures, resume, start
from modular_manifolds.training.data import DataSet
from modular_manifolds.training.health import copy_weights, health
from modular_manifolds.training.loop import check_machine
from modular_manifolds.training.report import write_report
from modular_manifolds.training.run_directory import RunDirectory, begin


def test_a_run_leaves_a_complete_directory(tmp_path: Path, data: DataSet) -> None:
    trainer, watcher = train(tmp_path / "run", data, spec())
    write_report(trainer)
    assert {each.name for each in (tmp_path / "run").iterdir()} == {
        "run.yaml",
        "metrics.jsonl",
        "initial.safetensors",
        "checkpoint.safetensors",
        "report.html",
        "pictures",
    }
    pictures = list((tmp_path / "run" / "pictures").iterdir())
    names = {"learning", "singular_values", "bounds", "certified", "split"}
    assert {each.name for each in pictures} == {f"{name}.svg" for name in names}
    assert all(each.read_text().startswith("<?xml") for each in pictures)
    report = (tmp_path / "run" / "report.html").read_text()
    for path in ("0", "2", "4"):
        assert report.count(f"<td>{path}</td>") == 2  # of the slopes and of the sizes
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 16))
    assert [row["epoch"] for row in rows if "loss" in row] == [1] * 5 + [2] * 5 + [3] * 5
    assert [row["epoch"] for row in rows if "test_accuracy" in row] == [1, 2, 3]
    assert len(watcher.steps) == 15
    assert len(watcher.epochs) == 3


class Square(mm.Bond):
    """x²; its slope grows with its input."""

    def __init__(self) -> None:
        super().__init__(sensitivity=2.0)

    def lipschitz_within(self, radius: float) -> float:
        return 2.0 * radius

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.square()


def test_a_module_without_a_bound_has_its_place_in_the_picture() -> None:
    net = mm.Linear(5, 4) >> Square() >> mm.Linear(4, 3)
    slopes, sizes = mm.lipschitz(net), mm.activations(net, radius=2.0)
    assert math.isinf(slopes.rows[1].certified)
    drawn, bounded = (
        figures.as_svg(figures.bounds(mm.lipschitz(net, radius=radius), sizes))
        for radius in (None, 2.0)
    )
    assert drawn.startswith("<?xml")
    assert drawn != bounded


def test_the_health_of_every_weight_is_written_after_each_epoch(
    tmp_path: Path, data: DataSet
) -> None:
    trainer, watcher = train(tmp_path / "run", data, spec("adamw"))
    rows = [row for row in trainer.directory.read_metrics() if "test_accuracy" in row]
    assert [set(row["weights"]) for row in rows] == [{"0.weight", "2.weight", "4.weight"}] * 3
    for path, weight in trainer.session.net.named_parameters():
        values = torch.linalg.svdvals(weight.detach().double())
        found = rows[-1]["weights"][path]
        assert found["largest"] == pytest.approx(float(values[0]))
        assert found["smallest"] == pytest.approx(float(values[-1]))
        assert found["condition"] == pytest.approx(float(values[0] / values[-1]))
        rank = float((values / values[0]).square().sum())
        assert found["stable_rank"] == pytest.approx(rank)
        # AdamW leaves the manifold.
        assert found["off_manifold"] > 1e-3
        assert 1e-6 < found["update"] < 1e-2
        assert vars(watcher.epochs[-1].weights[path]) == found


def test_the_update_is_that_of_the_last_step() -> None:
    net = mm.Linear(3, 2, manifold=mm.Euclidean(), norm=mm.Spectral())
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
        before = copy_weights(net)
        net.weight[0, 0] = 4.0
    (found,) = health(net, before).values()
    assert found.update == pytest.approx(0.25)
    assert (found.largest, found.smallest, found.stable_rank) == (4.0, 0.0, 1.0)
    assert found.condition == math.inf
    (unknown,) = health(net).values()
    assert unknown.update is None


def test_tensorboard_is_written_where_the_run_asks_for_it(tmp_path: Path, data: DataSet) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path / "without", data, spec(), stop_after=1)
    assert not (tmp_path / "without" / "tensorboard").exists()
    run = spec("steepest-descent", "tensorboard=true")
    killed = start(run, data, begin(run, tmp_path / "run"))
    # Steps 6 to 8 are done again after the checkpoint of step 5.
    with pytest.raises(KilledError):
        killed.run(Killer(killed, after=8))
    directory = killed.directory
    again = resume(directory.read_run(), data, directory)
    again.run(Watcher(again))
    events = EventAccumulator(str(directory.tensorboard))
    events.Reload()
    assert [each.step for each in events.Scalars("step/loss")] == list(range(1, 16))
    rows = [row for row in directory.read_metrics() if "weights" in row]
    for name, value in rows[-1]["weights"]["2.weight"].items():
        last = events.Scalars(f"2.weight/{name}")[-1]
        assert (last.step, last.value) == (15, pytest.approx(value, rel=1e-5, abs=1e-12))


def test_tensorboard_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    run = spec("steepest-descent", "tensorboard=true")
    check_machine(run)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SpecError, match="tensorboard needs the library tensorboard"):
        check_machine(run)


def test_what_the_machine_lacks_is_refused_before_a_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(["train", "--set", "device=cuda:99", "--out", str(folder)]) == 2
    assert "cuda:99" in capsys.readouterr().err
    assert not folder.exists()


def test_what_json_does_not_know_is_null_at_any_depth(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    row = {"step": 1, "loss": 2.0, "weights": {"größe": {"condition": math.inf}}}
    directory.append_metrics_(row)
    directory.cut_metrics_(1)
    assert json.loads(directory.metrics.read_text()) == {
        "step": 1,
        "loss": 2.0,
        "weights": {"größe": {"condition": None}},
    }


def test_a_directory_in_use_is_refused(tmp_path: Path, data: DataSet) -> None:
    train(tmp_path / "run", data, spec(), stop_after=1)
    with pytest.raises(DataError, match="--resume"):
        begin(spec(), tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(DataError, match="must be a new or an empty folder"):
        begin(spec(), tmp_path / "other")


@pytest.mark.usefixtures("blank_pictures")
def test_the_report_is_one_file(tmp_path: Path, data: DataSet) -> None:
    trainer, _ = train(tmp_path / "run", data, spec("adamw"))
    found = write_report(trainer)
    html = trainer.directory.report.read_text()
    assert html.count("data:image/svg+xml;base64,") == 5
    for outside in ("http://", "https://", "<script", "<link", "@import"):
        assert outside not in html
    # AdamW takes weights off their manifolds, and the report says so.
    assert found.off_manifold == ["0.weight", "2.weight", "4.weight"]
    assert "not guaranteed: the weights are off their manifolds" in html
    for path in found.off_manifold:
        assert path in html


@pytest.mark.usefixtures("blank_pictures")
def test_the_report_escapes_what_a_run_says(tmp_path: Path, data: DataSet) -> None:
    run = spec("steepest-descent", "data.path=<b>bold</b>")
    trainer, _ = train(tmp_path / "run", data, run, stop_after=1)
    write_report(trainer)
    html = trainer.directory.report.read_text()
    assert "<b>bold</b>" not in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html


def test_runs_that_start_in_the_same_second_have_a_folder_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = at_once(8, lambda: begin(mm.RunSpec(), None).path)
    assert len(set(folders)) == 8
    assert all(RunDirectory(Path(str(each))).run.is_file() for each in folders)
    assert {each.name for each in (tmp_path / "runs").iterdir()} == {
        Path(str(each)).name for each in folders
    }


@pytest.mark.parametrize("empty", [False, True])
def test_of_runs_that_ask_for_one_folder_one_has_it(tmp_path: Path, empty: bool) -> None:
    """Whether the folder is new, or is there and empty."""
    place = tmp_path / "run"
    if empty:
        place.mkdir()
    found = at_once(8, lambda: begin(mm.RunSpec(), place).path)
    refused = [each for each in found if isinstance(each, DataError)]
    assert found.count(place) == 1
    assert len(refused) == 7
    assert all("must be a new or an empty folder, got" in str(each) for each in refused)
    assert [each.name for each in tmp_path.iterdir()] == ["run"]
    assert [each.name for each in place.iterdir()] == ["run.yaml"]


def at_once(count: int, action: Callable[[], object]) -> list[object]:
    """The results of `count` threads that begin together, or their DataErrors."""
    gate, results = threading.Barrier(count), []

    def act() -> None:
        gate.wait()
        try:
            results.append(action())
        except DataError as error:
            results.append(error)

    threads = [threading.Thread(target=act) for _ in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return results


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    before = Path(os.devnull).stat().st_mode
    write_whole(Path(os.devnull), "text")
    assert Path(os.devnull).stat().st_mode == before
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
