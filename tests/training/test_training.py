"""Runs: what they leave behind, and that they go on bit for bit."""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from weights import as_one_group_a_weight

import modular_manifolds as mm
from modular_manifolds.cli.main import main
from modular_manifolds.errors import CheckpointError, DataError, NonFiniteError, SpecError
from modular_manifolds.specs.losses import MarginSpec
from modular_manifolds.specs.whole import write_whole
from modular_manifolds.training import figures, load_data, resume, start
from modular_manifolds.training.checkpoint import (
    read_checkpoint,
    restore_,
    trained,
    write_checkpoint,
)
from modular_manifolds.training.data import DataSet
from modular_manifolds.training.guarantees import certified_predictions
from modular_manifolds.training.health import copied, health
from modular_manifolds.training.loop import Trainer, check_machine
from modular_manifolds.training.losses import build_loss
from modular_manifolds.training.part import order
from modular_manifolds.training.report import write_report
from modular_manifolds.training.run_directory import RunDirectory, begin
from modular_manifolds.training.session import EpochMetrics, Session, StepMetrics
from modular_manifolds.training.split import Split

OPTIMIZERS = ("steepest-descent", "adamw", "muon")


class Watcher:
    """Remembers what it saw and asks to stop after a step."""

    def __init__(self, trainer: Trainer, stop_after: int | None = None) -> None:
        self.steps: list[StepMetrics] = []
        self.epochs: list[EpochMetrics] = []
        trainer.stop = lambda: stop_after is not None and len(self.steps) >= stop_after

    def on_step(self, metrics: StepMetrics) -> None:
        self.steps.append(metrics)

    def on_epoch(self, metrics: EpochMetrics) -> None:
        self.epochs.append(metrics)


class KilledError(Exception):
    """Stands for a run that ended without a chance to write anything."""


class Killer(Watcher):
    def __init__(self, trainer: Trainer, after: int) -> None:
        super().__init__(trainer)
        self.after = after

    def on_step(self, metrics: StepMetrics) -> None:
        super().on_step(metrics)
        if len(self.steps) == self.after:
            raise KilledError


@pytest.fixture(scope="module")
def data() -> DataSet:
    """The first few digits: five steps an epoch."""
    whole = load_data("digits")
    return DataSet(
        whole.spec,
        Split(whole.train.images[:150], whole.train.labels[:150]),
        Split(whole.test.images[:50], whole.test.labels[:50]),
        whole.classes,
    )


def spec(optimizer: str = "steepest-descent", *more: str) -> mm.RunSpec:
    changes = [f"optimizer.name={optimizer}", "epochs=3", "batch_size=32", *more]
    return mm.RunSpec().override(changes).resolved()


def train(
    path: Path, data: DataSet, run: mm.RunSpec, stop_after: int | None = None
) -> tuple[Trainer, Watcher]:
    trainer = start(run, data, begin(run, path))
    watcher = Watcher(trainer, stop_after)
    trainer.run(watcher)
    return trainer, watcher


def assert_same_run(a: Path, b: Path) -> None:
    for name in ("run.yaml", "metrics.jsonl", "checkpoint.safetensors", "initial.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop_after", [1, 5, 7])
def test_an_interrupted_run_goes_on_bit_for_bit(
    tmp_path: Path, data: DataSet, optimizer: str, stop_after: int
) -> None:
    run = spec(optimizer)
    whole, _ = train(tmp_path / "whole", data, run)
    assert whole.session.done
    part, _ = train(tmp_path / "part", data, run, stop_after)
    assert part.session.finished == stop_after
    torch.manual_seed(999)  # what happens between must not matter
    directory = RunDirectory(tmp_path / "part")
    again = resume(directory.read_run(), data, directory)
    assert again.session.finished == stop_after
    assert again.run(Watcher(again))
    assert_same_run(tmp_path / "whole", tmp_path / "part")
    for a, b in zip(whole.session.net.parameters(), again.session.net.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_killed_run_goes_on_from_its_last_checkpoint(
    tmp_path: Path, data: DataSet, optimizer: str
) -> None:
    run = spec(optimizer)
    train(tmp_path / "whole", data, run)
    trainer = start(run, data, begin(run, tmp_path / "killed"))
    with pytest.raises(KilledError):
        trainer.run(Killer(trainer, after=8))
    directory = RunDirectory(tmp_path / "killed")
    with directory.metrics.open("a") as file:
        file.write('{"step": 9, "lo')  # cut in the middle of a line
    again = resume(directory.read_run(), data, directory)
    assert again.session.finished == 5
    again.run(Watcher(again))
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


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


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_session_takes_the_steps_of_a_run_and_writes_nothing(
    tmp_path: Path, data: DataSet, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A run sets its number of threads, and a session takes the caller's; another number rounds differently.
    run = spec(optimizer, f"threads={torch.get_num_threads()}")
    trainer, watcher = train(tmp_path / "run", data, run)
    monkeypatch.chdir(tmp_path)
    session = Session(run, data)
    taken = [session.step(), *session.advance(4)]
    assert session.epoch_done
    assert session.evaluate() == watcher.epochs[0]
    taken += session.advance(100)
    assert session.done
    assert session.advance(1) == []
    assert taken == watcher.steps
    assert session.evaluate() == watcher.epochs[-1]
    for a, b in zip(trainer.session.net.parameters(), session.net.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_a_session_copies_no_data(data: DataSet) -> None:
    session = Session(spec(), data)
    assert isinstance(session.data, DataSet)
    assert session.data.train.images.data_ptr() == data.train.images.data_ptr()
    assert session.data.test.labels.data_ptr() == data.test.labels.data_ptr()


def test_what_a_session_measures_is_the_mean_over_all_examples(data: DataSet) -> None:
    session = Session(spec("steepest-descent", "loss.name=margin"), data)
    whole = session.loss(session.net(data.train.images), data.train.labels).detach()
    right = session.net(data.train.images).argmax(dim=1) == data.train.labels
    found = session.measure(data.train)
    assert found.loss == pytest.approx(float(whole), rel=1e-5)
    assert found.accuracy == pytest.approx(float(right.float().mean()))


def test_parts_larger_than_a_batch_are_measured_whole(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(spec(), data)
    whole = session.measure(data.train)
    monkeypatch.setattr("modular_manifolds.training.session.MEASURED", 40)
    parts = session.measure(data.train)
    # The products of a part have another shape, so they round otherwise.
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert parts.accuracy == pytest.approx(whole.accuracy)


@pytest.mark.parametrize(("steps", "measured"), [(3, [3]), (5, [5]), (12, [5, 10, 12])])
def test_steps_override_epochs(
    tmp_path: Path, data: DataSet, steps: int, measured: list[int]
) -> None:
    run = spec("steepest-descent", f"steps={steps}", "checkpoint_every=2")
    trainer, watcher = train(tmp_path / "run", data, run)
    assert [each.step for each in watcher.steps] == list(range(1, steps + 1))
    assert watcher.steps[-1].lr == pytest.approx(0.1 / steps)
    rows = trainer.directory.read_metrics()
    assert [row["step"] for row in rows if "test_loss" in row] == measured
    assert [each.epoch for each in watcher.epochs] == list(range(1, len(measured) + 1))
    assert all(w.update is not None for each in watcher.epochs for w in each.weights.values())
    assert read_checkpoint(trainer.directory.checkpoint).step == steps


def test_a_checkpoint_with_one_group_a_weight_goes_on_bit_for_bit(
    tmp_path: Path, data: DataSet
) -> None:
    run = spec("steepest-descent", "steps=5")
    first, second = Session(run, data), Session(run, data)
    first.advance(3)
    path = tmp_path / "checkpoint"
    whole = {"net": first.net, "optimizer": first.optimizer, "schedule": first.schedule}
    write_checkpoint(path, step=3, **whole)
    saved = read_checkpoint(path)
    groups = as_one_group_a_weight({"param_groups": saved.content["groups"]})["param_groups"]
    assert len(groups) > 1
    schedule = {
        key: value * len(groups) if isinstance(value, list) else value
        for key, value in saved.content["schedule"].items()
    }
    former = replace(saved, content={**saved.content, "groups": groups, "schedule": schedule})
    restore_(former, path, net=second.net, optimizer=second.optimizer, schedule=second.schedule)
    second.finished = 3
    assert second.advance(2) == first.advance(2)
    for p, q in zip(first.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(p, q)


def test_nan_does_not_travel_from_the_last_step(data: DataSet) -> None:
    session = Session(spec("adamw", "steps=1"), data)
    session.step()
    with torch.no_grad():
        next(session.net.parameters()).fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="the loss after step 1 must be finite, got nan"):
        session.evaluate()


def test_a_loss_that_is_not_finite_moves_no_weight_on_the_cpu(data: DataSet) -> None:
    broken = DataSet(data.spec, Split(data.train.images / 0, data.train.labels), data.test, ())
    session = Session(spec("adamw"), broken)
    before = copied(session.net)
    with pytest.raises(NonFiniteError, match="the loss at step 1 must be finite"):
        session.advance(5)
    assert all(torch.equal(before[name], p) for name, p in session.net.named_parameters())


def test_the_update_is_that_of_the_last_step() -> None:
    net = mm.Linear(3, 2, manifold=mm.Euclidean(), norm=mm.Spectral())
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
        before = copied(net)
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
    directory.append_metrics_({"step": 1, "weights": {"größe": {"condition": math.inf}}})
    directory.cut_metrics_(1)
    assert json.loads(directory.metrics.read_text()) == {
        "step": 1,
        "weights": {"größe": {"condition": None}},
    }


def test_the_run_file_reproduces_the_run(tmp_path: Path, data: DataSet) -> None:
    first, _ = train(tmp_path / "first", data, spec())
    again, _ = train(tmp_path / "again", data, RunDirectory(tmp_path / "first").read_run())
    assert_same_run(tmp_path / "first", tmp_path / "again")
    for a, b in zip(first.session.net.parameters(), again.session.net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_training_learns_and_stays_on_the_manifold(tmp_path: Path) -> None:
    trainer, watcher = train(tmp_path / "run", load_data("digits"), spec().override(["epochs=4"]))
    assert watcher.epochs[-1].test_accuracy > 0.9
    points = {name: p.detach() for name, p in trainer.session.net.named_parameters()}
    assert max(float(r) for r in trainer.session.net.manifold.residual(points).values()) <= 1e-5


def test_the_learning_rate_falls_to_zero(tmp_path: Path, data: DataSet) -> None:
    for schedule, last in (("linear", 1 / 15), ("cosine", 0.0109), ("constant", 1.0)):
        run = spec("steepest-descent", f"schedule={schedule}", "optimizer.lr=1.0")
        _, watcher = train(tmp_path / schedule, data, run)
        assert watcher.steps[0].lr == 1.0
        assert watcher.steps[-1].lr == pytest.approx(last, abs=1e-4)


def test_the_order_of_the_examples_depends_on_seed_and_epoch_only(data: DataSet) -> None:
    torch.manual_seed(1)
    first = order(data.train, 32, seed=0, epoch=0)
    torch.manual_seed(2)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first, order(data.train, 32, seed=0, epoch=0), strict=True)
    )
    assert sorted(torch.cat(first).tolist()) == list(range(150))
    for other in (
        order(data.train, 32, seed=1, epoch=0),
        order(data.train, 32, seed=0, epoch=1),
    ):
        assert not torch.equal(torch.cat(first), torch.cat(other))


def certified_after(path: Path, data: DataSet, *more: str) -> float:
    trainer, _ = train(path, data, spec("steepest-descent", "epochs=6", "batch_size=128", *more))
    return (
        certified_predictions(trainer.session.net, data, points=359, radii=[0.6]).rows[0].certified
    )


def test_a_margin_raises_the_certified_accuracy(tmp_path: Path) -> None:
    """46.0 % and 51.8 % when this was written."""
    data = load_data("digits")
    margin = ["loss.name=margin", "loss.margin=0.6"]
    plain = certified_after(tmp_path / "plain", data)
    assert certified_after(tmp_path / "margin", data, *margin) > plain + 0.03


def test_the_margin_is_in_the_units_of_the_radius() -> None:
    """On the margin the outputs, less the offset, tie."""
    net = mm.Linear(64, 10, manifold=mm.Stiefel(radius=3.0), norm=mm.Spectral())
    scale = load_data("digits").scale
    loss = build_loss(MarginSpec(name="margin", temperature=5.0, margin=0.2), net, scale)
    outputs = torch.zeros(1, 10)
    outputs[0, 7] = 3.0 / 0.25 * math.sqrt(2) * 0.2
    assert float(loss(outputs, torch.tensor([7]))) == pytest.approx(math.log(10), rel=1e-5)
    right = float(loss(2 * outputs, torch.tensor([7])))
    assert right == pytest.approx(math.log1p(9 * math.exp(-5 * math.sqrt(2) * 0.2)), rel=1e-5)


def test_a_margin_without_a_declared_bound_is_refused(tmp_path: Path, data: DataSet) -> None:
    run = spec("steepest-descent", "network.modules.0.manifold.type=euclidean", "loss.name=margin")
    with pytest.raises(SpecError, match=r"loss\.name can be margin for a network with a finite"):
        start(run, data, begin(run, tmp_path / "run"))


def test_a_loss_that_explodes_is_said_in_words(tmp_path: Path, data: DataSet) -> None:
    run = spec("adamw")
    trainer = start(run, data, begin(run, tmp_path / "run"))
    with torch.no_grad():
        next(trainer.session.net.parameters()).fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="the loss at step 1 must be finite, got nan"):
        trainer.run(Watcher(trainer))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, data: DataSet) -> Path:
    path = tmp_path_factory.mktemp("runs") / "stopped"
    train(path, data, spec(), stop_after=2)
    return path


@pytest.fixture
def damaged(stopped: Path, tmp_path: Path) -> RunDirectory:
    """A copy that a test may damage."""
    shutil.copytree(stopped, tmp_path / "copy")
    return RunDirectory(tmp_path / "copy")


@pytest.mark.parametrize("keep", [0, 7, 100, 5000])
def test_a_truncated_checkpoint_is_refused(damaged: RunDirectory, data: DataSet, keep: int) -> None:
    damaged.checkpoint.write_bytes(damaged.checkpoint.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors") as caught:
        resume(damaged.read_run(), data, damaged)
    assert "\n" not in str(caught.value)


def test_a_changed_byte_is_noticed(damaged: RunDirectory, data: DataSet) -> None:
    content = bytearray(damaged.checkpoint.read_bytes())
    content[-100] ^= 1
    damaged.checkpoint.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="another checksum"):
        resume(damaged.read_run(), data, damaged)


def test_a_pickle_is_not_opened(damaged: RunDirectory, data: DataSet) -> None:
    torch.save({"step": 1}, damaged.checkpoint)
    with pytest.raises(CheckpointError, match="must be a whole safetensors file"):
        resume(damaged.read_run(), data, damaged)


@pytest.mark.parametrize("name", ["run.yaml", "checkpoint.safetensors", "initial.safetensors"])
def test_a_missing_file_is_refused(damaged: RunDirectory, data: DataSet, name: str) -> None:
    (damaged.path / name).unlink()
    with pytest.raises(CheckpointError):
        resume(damaged.read_run(), data, damaged)


def test_a_run_of_another_version_is_refused(damaged: RunDirectory) -> None:
    text = damaged.run.read_text()
    damaged.run.write_text(text.replace("format: 1", "format: 2"))
    with pytest.raises(SpecError, match="format must be 1, got 2"):
        damaged.read_run()


def test_a_checkpoint_of_another_optimizer_is_refused(damaged: RunDirectory, data: DataSet) -> None:
    text = damaged.run.read_text()
    other = mm.RunSpec.from_file(damaged.run).override(
        ["network.modules.0.out_features=100", "network.modules.2.in_features=100"]
    )
    damaged.run.write_text(other.to_yaml())
    assert damaged.run.read_text() != text
    mm.save(other.network.build() if other.network else mm.Identity(), damaged.initial)
    with pytest.raises(CheckpointError, match="must belong to the run beside it"):
        resume(damaged.read_run(), data, damaged)


def test_a_checkpoint_is_whole_at_any_time(
    tmp_path: Path, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = train(tmp_path / "run", data, spec(), stop_after=2)
    before = trainer.directory.checkpoint.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("modular_manifolds.specs.archive.save_file", fail)
    with pytest.raises(CheckpointError, match="no space left"):
        trainer.save()
    assert trainer.directory.checkpoint.read_bytes() == before
    assert not list(trainer.directory.path.glob("*.tmp"))


def test_a_directory_in_use_is_refused(tmp_path: Path, data: DataSet) -> None:
    train(tmp_path / "run", data, spec(), stop_after=1)
    with pytest.raises(DataError, match="--resume"):
        begin(spec(), tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(DataError, match="must be a new or an empty folder"):
        begin(spec(), tmp_path / "other")


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


def test_a_lost_checkpoint_is_not_taken_for_a_run_that_had_none(
    damaged: RunDirectory, data: DataSet
) -> None:
    """There are metrics, so there was a checkpoint: to start again would throw the run away."""
    damaged.checkpoint.unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors must be a readable file"):
        resume(damaged.read_run(), data, damaged)


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    before = Path(os.devnull).stat().st_mode
    write_whole(Path(os.devnull), "text")
    assert Path(os.devnull).stat().st_mode == before
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_checkpoint_that_is_not_finite_is_no_trained_network(
    tmp_path: Path, data: DataSet, value: float
) -> None:
    trainer, _ = train(tmp_path / "run", data, spec(), stop_after=1)
    with torch.no_grad():
        next(trainer.session.net.parameters())[0, 0] = value
    trainer.save()
    with pytest.raises(CheckpointError, match=r"'0\.weight' must be finite, got NaN or infinity"):
        trained(trainer.directory)


def test_a_run_computes_as_it_says_whatever_surrounds_it(tmp_path: Path, data: DataSet) -> None:
    run = spec("steepest-descent", "steps=2")
    train(tmp_path / "plain", data, run)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
            train(tmp_path / "surrounded", data, run)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same_run(tmp_path / "plain", tmp_path / "surrounded")
