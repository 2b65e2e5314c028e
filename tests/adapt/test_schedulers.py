"""Every scheduler of torch moves the rates of an adapted model, those of AdamW's groups too."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from long_tests import mostly_long
from small import adapted, backward, mlp, same_bits
from torch.optim import lr_scheduler as all_of_them
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.optim.swa_utils import SWALR

import modular_manifolds as mm

STEPS = 8

SCHEDULERS: dict[str, Callable[[mm.SteepestDescent], Any]] = {
    "LambdaLR": lambda opt: LambdaLR(opt, lambda step: 1 / (1 + step)),
    "MultiplicativeLR": lambda opt: MultiplicativeLR(opt, lambda _: 0.9),
    "StepLR": lambda opt: StepLR(opt, 2),
    "MultiStepLR": lambda opt: MultiStepLR(opt, [2, 4]),
    "ConstantLR": lambda opt: ConstantLR(opt, 0.5, 3),
    "LinearLR": lambda opt: LinearLR(opt, 0.1, 1.0, STEPS),
    "ExponentialLR": lambda opt: ExponentialLR(opt, 0.9),
    "PolynomialLR": lambda opt: PolynomialLR(opt, STEPS),
    "CosineAnnealingLR": lambda opt: CosineAnnealingLR(opt, STEPS),
    "CosineAnnealingWarmRestarts": lambda opt: CosineAnnealingWarmRestarts(opt, 3),
    "SequentialLR": lambda opt: SequentialLR(
        opt, [LinearLR(opt, 0.1, 1.0, 3), CosineAnnealingLR(opt, STEPS)], [3]
    ),
    "ChainedScheduler": lambda opt: ChainedScheduler(
        [ConstantLR(opt, 0.5, 2), ExponentialLR(opt, 0.9)]
    ),
    "CyclicLR": lambda opt: CyclicLR(opt, 0.01, 0.2, step_size_up=3, cycle_momentum=True),
    "OneCycleLR": lambda opt: OneCycleLR(opt, 0.2, total_steps=STEPS + 1),
    "ReduceLROnPlateau": lambda opt: ReduceLROnPlateau(opt, patience=0),
    "SWALR": lambda opt: SWALR(opt, 0.01, anneal_epochs=4),
}

CYCLE_MOMENTUM = ("CyclicLR", "OneCycleLR")


def test_no_scheduler_is_forgotten() -> None:
    known = {
        name
        for name, each in vars(all_of_them).items()
        if inspect.isclass(each) and issubclass(each, LRScheduler) and not name.startswith("_")
    }
    assert known - {"LRScheduler"} <= SCHEDULERS.keys()


def run(model: Any, opt: mm.SteepestDescent, schedule: Any, steps: range) -> list[list[Any]]:
    seen: list[list[Any]] = []
    for step in steps:
        opt.zero_grad()
        backward(model, step)
        opt.step()
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(1.0)
        else:
            schedule.step()
        seen.append([(float(g["lr"]), g["momentum"]) for g in opt.param_groups])
    return seen


@pytest.mark.parametrize("tensor", mostly_long([False, True], usual=2), ids=["float", "tensor"])
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")
def test_a_scheduler_moves_every_group_and_resumes(name: str, tensor: bool) -> None:
    model = mlp()
    opt = adapted(model, lr=torch.tensor(0.1) if tensor else 0.1, nesterov=False)
    assert "optimizer" in opt.param_groups[-1]
    schedule = SCHEDULERS[name](opt)
    first = run(model, opt, schedule, range(STEPS // 2))
    saved = copy.deepcopy((model.state_dict(), opt.state_dict(), schedule.state_dict()))
    rest = run(model, opt, schedule, range(STEPS // 2, STEPS))
    for group in range(len(opt.param_groups)):
        assert len({at[group][0] for at in first + rest}) > 1, "the rate of a group did not move"
    if name in CYCLE_MOMENTUM:
        assert len({at[0][1] for at in first + rest}) > 1

    twin = mlp()
    other = adapted(twin, lr=torch.tensor(0.1) if tensor else 0.1, nesterov=False)
    again = SCHEDULERS[name](other)
    twin.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    again.load_state_dict(saved[2])
    assert run(twin, other, again, range(STEPS // 2, STEPS)) == rest
    assert same_bits(model, twin)


@pytest.mark.parametrize("capturable", [False, True])
def test_a_fallback_keeps_its_own_rate(capturable: bool) -> None:
    plan = mm.adapt(mlp(), [mm.Fallback("*bias", lr=1e-3), mm.Rule("*")])
    opt = mm.SteepestDescent(plan, 0.01, capturable=capturable)
    assert [float(group["lr"]) for group in opt.param_groups][-1] == pytest.approx(1e-3)
    assert float(opt.param_groups[0]["lr"]) == pytest.approx(0.01)
