"""Callbacks log geometry and responses through the trainer's own loggers, and change no bit of the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError
from modular_manifolds.integrations.geometry import GeometryMonitor, Schedule, inner_optimizer

# Every trainer has warnings of its own, about workers, tiny logs and this machine.
pytestmark = pytest.mark.filterwarnings("ignore")

GEOMETRY = ("off_manifold", "largest_sigma", "smallest_sigma", "condition")


class Net(nn.Module):
    """A perceptron that gives its loss, as the models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)
        )

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.layers(x)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def stepped(
    net: Net, plan: mm.ModelPlan, steps: int, monitor: GeometryMonitor | None = None
) -> Any:
    opt = mm.SteepestDescent(plan, lr=0.2, momentum=0.9)
    dropped = nn.Dropout()
    x, labels = data()
    for _ in range(steps):
        opt.zero_grad()
        net(dropped(x), labels)["loss"].backward()
        opt.step()
        if monitor is not None:
            monitor.geometry(opt)
            if monitor.measures:
                monitor.responses()
    return opt


def test_the_numbers_are_those_of_the_report() -> None:
    net = Net()
    plan = mm.adapt(net)
    opt = stepped(net, plan, 3)
    found = GeometryMonitor(plan, each=True).geometry(opt)
    rows = [row for row in mm.conditioning(plan).rows if "Stiefel" in row.manifold]
    assert [row.path for row in rows] == ["layers.0.weight", "layers.2.weight"]
    assert found["geometry/off_manifold"] == max(row.residual for row in rows) <= 1e-5
    assert found["geometry/largest_sigma"] == max(row.largest for row in rows)
    assert found["geometry/smallest_sigma"] == min(row.smallest for row in rows)
    assert found["smallest_sigma/layers.0.weight"] == rows[0].smallest
    assert 0 <= found["geometry/gap"] < 1
    assert found["geometry/gap"] == max(v for name, v in found.items() if name.startswith("gap/"))


def test_a_declared_network_is_watched_too() -> None:
    net = mm.Linear(4, 4) >> mm.ReLU() >> mm.Linear(4, 2)
    assert GeometryMonitor(net).geometry()["geometry/condition"] == pytest.approx(1, abs=1e-5)
    with pytest.raises(ArgumentError, match=r"declared network"):
        GeometryMonitor(net, torch.randn(2, 4))


def test_drift_is_told_against_the_responses_of_the_plan() -> None:
    net, (x, _) = Net(), data()
    plan = mm.adapt(net, example_inputs=x, progress=False)
    monitor = GeometryMonitor(plan, x, each=True)
    fresh = monitor.responses()
    assert fresh["response/drift"] == pytest.approx(1, rel=1e-4)
    assert fresh["response/output_change"] == pytest.approx(plan.budget().first_order, rel=1e-4)
    with torch.no_grad():
        net.get_parameter("layers.4.weight").mul_(3)
    later = monitor.responses()
    assert later["response/drift"] == pytest.approx(3, rel=0.2)
    assert later["response/layers.0.weight"] == pytest.approx(
        3 * fresh["response/layers.0.weight"], rel=0.2
    )


def test_without_responses_in_the_plan_the_first_ones_count() -> None:
    net, (x, _) = Net(), data()
    monitor = GeometryMonitor(mm.adapt(net), x)
    assert monitor.responses()["response/drift"] == 1.0
    assert set(monitor.first) == {name for name, _ in net.named_parameters()}


@pytest.mark.parametrize("batch", [None, data()[0]])
def test_a_monitor_changes_no_bit(batch: Tensor | None) -> None:
    ends: list[Tensor] = []
    for watched in (False, True):
        torch.manual_seed(0)
        net = Net()
        plan = mm.adapt(net)
        stepped(net, plan, 5, GeometryMonitor(plan, batch) if watched else None)
        ends.append(net.get_parameter("layers.0.weight").detach().clone())
    assert torch.equal(*ends)


def test_every_step_is_logged_once_and_in_time() -> None:
    plan = mm.adapt(Net())
    schedule = Schedule(GeometryMonitor(plan), every=3, measure_every=None)
    seen = [step for step in (0, 1, 1, 2, 3, 3, 3, 4, 6) if schedule.numbers(step, None)]
    assert seen == [3, 6]
    with pytest.raises(ArgumentError, match=r"every"):
        Schedule(GeometryMonitor(plan), every=0, measure_every=None)


def test_the_optimiser_is_found_inside_wrappers() -> None:
    class Wrapper:
        def __init__(self, optimizer: Any) -> None:
            self.optimizer = optimizer

    opt = mm.SteepestDescent(mm.adapt(Net()), lr=0.1)
    assert inner_optimizer(Wrapper(Wrapper(opt))) is opt
    assert inner_optimizer(torch.optim.SGD([nn.Parameter(torch.ones(1))])) is None


def events(folder: Path) -> dict[str, list[int]]:
    """The steps of each scalar that TensorBoard finds."""
    (file,) = {each.parent for each in folder.rglob("events.out.*")}
    found = EventAccumulator(str(file))
    found.Reload()
    return {tag: [e.step for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.parametrize("batch", [None, data()[0]])
def test_lightning_writes_them_to_tensorboard(tmp_path: Path, batch: Tensor | None) -> None:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.loggers import TensorBoardLogger

    from modular_manifolds.integrations.lightning import GeometryCallback

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()
            self.plan = mm.adapt(self.net)

        def training_step(self, batch: Any) -> Tensor:
            return self.net(*batch)["loss"]

        def configure_optimizers(self) -> mm.SteepestDescent:
            return mm.SteepestDescent(self.plan, lr=0.1)

    module = Module()
    callback = GeometryCallback(module.plan, every=3, batch=batch, measure_every=4)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        accumulate_grad_batches=2,
        logger=TensorBoardLogger(tmp_path),
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(TensorDataset(*data()), 8))
    found = events(tmp_path)
    assert all(found[f"geometry/{name}"] == [3, 6] for name in GEOMETRY)
    assert float(trainer.callback_metrics["geometry/off_manifold"]) <= 1e-5
    if batch is not None:
        assert found["response/drift"] == [1, 4, 8]
        again = GeometryCallback(module.plan, batch=batch)
        again.load_state_dict(callback.state_dict())
        assert again.state_dict() == callback.state_dict()


@pytest.mark.parametrize("batch", [None, data()[0]])
def test_hugging_face_writes_them_to_tensorboard(
    tmp_path: Path, batch: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer, TrainingArguments

    from modular_manifolds.integrations.transformers import GeometryCallback

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    net = Net()
    plan = mm.adapt(net)
    opt = mm.SteepestDescent(plan, lr=0.1)
    args = TrainingArguments(
        str(tmp_path),
        max_steps=6,
        per_device_train_batch_size=8,
        report_to=["tensorboard"],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    x, labels = data()
    trainer = Trainer(
        net,
        args,
        train_dataset=[{"x": a, "labels": b} for a, b in zip(x, labels, strict=True)],  # pyright: ignore[reportArgumentType]
        optimizers=(opt, torch.optim.lr_scheduler.ConstantLR(opt)),  # pyright: ignore[reportArgumentType]
    )
    trainer.add_callback(GeometryCallback(plan, trainer, every=3, batch=batch, measure_every=4))
    trainer.train()
    found = events(tmp_path / "logs")
    assert all(found[f"train/geometry/{name}"] == [3, 6] for name in (*GEOMETRY, "gap"))
    if batch is not None:
        assert found["train/response/drift"] == [1, 4]
