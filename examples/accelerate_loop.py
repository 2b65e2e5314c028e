"""Accelerate: model, optimiser, data and schedule go through `prepare`; gradients are accumulated, states resume exactly.

pip install accelerate
python examples/accelerate_loop.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

import modular_manifolds as mm
from modular_manifolds.integrations.geometry import GeometryMonitor
from modular_manifolds.training.data import load_data


def run(
    folder: Path, *, epochs: int = 4, stop_after: int | None = None, lr: float = 0.5
) -> tuple[nn.Module, float]:
    """Train, or go on from the last state in `folder`; the model and its accuracy on held-out digits.

    Args:
        folder: the place of the states, one folder an epoch.
        epochs: the length of the whole run, which the schedule knows.
        stop_after: the number of epochs after which to stop early.
        lr: how far a step may move the outputs.
    """
    set_seed(0)
    # The order of the batches follows from the epoch, so a run that goes on sees the same ones.
    order = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2, dataloader_config=order)
    data = load_data("digits")
    net: nn.Module = nn.Sequential(
        nn.Linear(64, 64),
        nn.LayerNorm(64),
        nn.GELU(),
        nn.Linear(64, 64),
        nn.GELU(),
        nn.Linear(64, 10),
    )
    plan = mm.adapt(net)  # ours
    steepest = mm.SteepestDescent(plan, lr, momentum=0.9, nesterov=True)  # ours
    loader = DataLoader(TensorDataset(data.train.images, data.train.labels), 32, shuffle=True)
    updates = epochs * ((len(loader) + 1) // 2)
    model, opt, batches, schedule = accelerator.prepare(
        net, steepest, loader, CosineAnnealingLR(steepest, updates)
    )
    monitor = GeometryMonitor(plan)
    first = max((int(each.name) for each in folder.iterdir() if each.is_dir()), default=0)
    if first:
        accelerator.load_state(str(folder / str(first)))
    for epoch in range(first, epochs if stop_after is None else stop_after):
        batches.set_epoch(epoch)
        for images, labels in batches:
            with accelerator.accumulate(model):
                accelerator.backward(functional.cross_entropy(model(images), labels))
                opt.step()
                schedule.step()
                opt.zero_grad()
        accelerator.log(monitor.geometry(steepest), step=epoch)
        accelerator.save_state(str(folder / str(epoch + 1)))
    with torch.no_grad():
        found = model(data.test.images).argmax(dim=1)
    return accelerator.unwrap_model(model), float((found == data.test.labels).float().mean())


if __name__ == "__main__":
    runs = Path("runs/accelerate")
    runs.mkdir(parents=True, exist_ok=True)
    print(f"accuracy {run(runs)[1]:.3f}")
