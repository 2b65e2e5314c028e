"""A plain training loop: a convolutional network of torch reads digits, and two lines give its weights a geometry.

    python examples/plain_loop.py

An interrupted run continues from its checkpoint, bit for bit like an uninterrupted one.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR

import modular_manifolds as mm
from modular_manifolds.training.data import load_data


def network() -> nn.Sequential:
    """Two convolutions and a head, as anybody would write them."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def run(folder: Path, *, epochs: int = 5, stop_after: int | None = None, lr: float = 0.5) -> float:
    """Train, or go on from the checkpoint in `folder`; the accuracy on held-out digits.

    Args:
        folder: the place of the checkpoint.
        epochs: the length of the whole run, which the schedule knows.
        stop_after: the number of epochs after which to stop early, as an interruption would.
        lr: how far a step may move the outputs.
    """
    torch.manual_seed(0)
    data, model = load_data("digits"), network()
    plan = mm.adapt(model)  # ours
    opt = mm.SteepestDescent(plan, lr, momentum=0.9, nesterov=True)  # ours
    schedule = CosineAnnealingLR(opt, epochs)
    file, first = folder / "last.pt", 0
    if file.exists():
        saved = torch.load(file, weights_only=True)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["epochs"]
    for epoch in range(first, epochs if stop_after is None else stop_after):
        order = data.train.draw_order(torch.Generator().manual_seed(epoch))
        for chosen in order.split(64):
            images, labels = data.train.take(chosen)
            opt.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            opt.step()
        schedule.step()
        states = {"model": model, "opt": opt, "schedule": schedule}
        saved = {name: each.state_dict() for name, each in states.items()}
        torch.save({**saved, "epochs": epoch + 1}, file)
    with torch.no_grad():
        found = model(data.test.images).argmax(dim=1)
    return float((found == data.test.labels).float().mean())


if __name__ == "__main__":
    runs = Path("runs/plain-loop")
    runs.mkdir(parents=True, exist_ok=True)
    print(f"accuracy {run(runs):.3f}")
