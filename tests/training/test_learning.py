"""Training learns, stays on the manifold, and follows its schedule, its order and its margin."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from small_runs import spec, train
from watcher import Watcher

import modular_manifolds as mm
from modular_manifolds.errors import NonFiniteError, SpecError
from modular_manifolds.specs.losses import MarginSpec
from modular_manifolds.training import load_data, start
from modular_manifolds.training.data import DataSet
from modular_manifolds.training.guarantees import certified_predictions
from modular_manifolds.training.losses import build_loss
from modular_manifolds.training.part import order
from modular_manifolds.training.run_directory import begin


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
