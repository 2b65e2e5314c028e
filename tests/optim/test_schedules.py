"""Torch's schedulers and closures drive the optimiser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from four_layers import backward, network

import modular_manifolds as mm


def schedulers() -> dict[
    str, Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
]:
    lr = torch.optim.lr_scheduler
    return {
        "linear": lambda o: lr.LinearLR(o, 1.0, 0.1, total_iters=5),
        "cosine": lambda o: lr.CosineAnnealingLR(o, T_max=5),
        "cyclic": lambda o: lr.OneCycleLR(o, max_lr=0.1, total_steps=6, cycle_momentum=False),
        "lambda": lambda o: lr.LambdaLR(o, lambda step: 0.9**step),
        "sequential": lambda o: lr.SequentialLR(
            o, [lr.ConstantLR(o, 0.5, 2), lr.ExponentialLR(o, 0.9)], milestones=[2]
        ),
    }


@pytest.mark.parametrize("name", schedulers())
def test_any_scheduler_drives_all_groups(name: str) -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1)
    scheduler = schedulers()[name](opt)
    seen = set()
    for _ in range(5):
        backward(net)
        opt.step()
        scheduler.step()
        rates = {group["lr"] for group in opt.param_groups}
        assert len(rates) == 1
        seen |= rates
    assert len(seen) > 1


def test_reduce_on_plateau() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0, factor=0.5)
    for _ in range(3):
        backward(net)
        opt.step()
        scheduler.step(1.0)
    assert {group["lr"] for group in opt.param_groups} == {0.025}


def test_closure_runs_with_gradients_and_returns_the_loss() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1)
    losses: list[float] = []

    def closure() -> float:
        assert torch.is_grad_enabled()
        losses.append(float(backward(net)))
        return losses[-1]

    first = opt.step(closure)
    assert first == losses[0]
    opt.step(closure)
    assert losses[1] < losses[0]
