"""A weight of an adapted model that learns and is in no group is told of, before any weight moves."""

from __future__ import annotations

import copy
import pickle
import timeit

import pytest
import torch
from torch import nn

import modular_manifolds as mm
from modular_manifolds.errors import UnconstrainedParameterError


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def backward(model: nn.Module) -> None:
    model.zero_grad()
    model(torch.randn(8, 6)).square().mean().backward()


def half_frozen() -> tuple[nn.Sequential, mm.SteepestDescent]:
    model = small()
    model[0].requires_grad_(False)
    opt = mm.SteepestDescent(mm.adapt(model), lr=0.1, momentum=0.9)
    backward(model)
    opt.step()
    model[0].requires_grad_(True)
    backward(model)
    return model, opt


@pytest.mark.parametrize("how", ["itself", "copy", "pickle"])
def test_an_unfrozen_weight_that_the_plan_never_saw_is_refused(how: str) -> None:
    both = half_frozen()
    if how == "copy":
        both = copy.deepcopy(both)
        backward(both[0])
    if how == "pickle":
        both = pickle.loads(pickle.dumps(both))
        backward(both[0])
    model, opt = both
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UnconstrainedParameterError, match=r"'0\.weight'.*mm\.Skip"):
        opt.step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_it_may_join_with_a_geometry_of_its_own() -> None:
    model, opt = half_frozen()
    opt.add_param_group({"params": model[0].named_parameters(), "optimizer": "adamw", "lr": 1e-3})
    before = model.get_parameter("0.weight").detach().clone()
    opt.step()
    assert not torch.equal(model.get_parameter("0.weight"), before)


def test_a_weight_that_was_adapted_may_be_frozen_and_unfrozen() -> None:
    model = small()
    opt = mm.SteepestDescent(mm.adapt(model), lr=0.1, momentum=0.9)
    for frozen in (True, False, True):
        model[0].requires_grad_(not frozen)
        backward(model)
        before = model.get_parameter("0.weight").detach().clone()
        opt.step()
        assert torch.equal(model.get_parameter("0.weight"), before) == frozen
        opt.zero_grad()


def test_a_skipped_weight_is_left_to_others() -> None:
    model = small()
    opt = mm.SteepestDescent(mm.adapt(model, [mm.Skip("0.*"), mm.Rule("*")]), lr=0.1)
    backward(model)
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    opt.step()
    for name, each in model.named_parameters():
        assert torch.equal(each, before[name]) == name.startswith("0."), name


def test_a_layer_that_replaced_an_adapted_one_is_refused() -> None:
    model = small()
    opt = mm.SteepestDescent(mm.adapt(model), lr=0.1)
    backward(model)
    opt.step()
    opt.zero_grad()
    model[4] = nn.Linear(4, 3)
    backward(model)
    with pytest.raises(UnconstrainedParameterError, match=r"'4\.weight'"):
        opt.step()


def test_an_optimiser_is_pickled_without_the_model() -> None:
    model = small()
    # Nothing that is pickled may hold it.
    vars(model)["extra"] = lambda x: x
    opt = mm.SteepestDescent(mm.adapt(model), lr=0.1)
    assert pickle.loads(pickle.dumps(opt)).param_groups[0]["lr"] == 0.1


def test_looking_for_them_costs_microseconds() -> None:
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(76)])
    model[:75].requires_grad_(False)
    opt = mm.SteepestDescent(mm.adapt(model), lr=0.1)
    unclaimed = opt._unclaimed  # pyright: ignore[reportPrivateUsage]
    best = min(timeit.repeat(lambda: unclaimed.check(opt.param_groups), number=20, repeat=20)) / 20
    # Ten times what was measured, for a busy machine.
    assert best < 150e-6
