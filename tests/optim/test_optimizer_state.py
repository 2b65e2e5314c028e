"""State exists from construction on, follows its weight to every dtype, and goes through checkpoints of other tools."""

from __future__ import annotations

import copy
from typing import Any

import cases
import pytest
import torch
from modular_manifolds_bench.baselines import Lyapunov
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from two_layers import momenta, network, step
from weights import EVERY_PAIR, Weight, give_gradient

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError


@pytest.mark.parametrize("tangent", [False, True])
def test_state_follows_the_weight_to_every_dtype(tangent: bool) -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9, nesterov=True, tangent_momentum=tangent)
    dtypes = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float32]
    for seed, dtype in enumerate([*dtypes, torch.float64, torch.bfloat16, torch.float64]):
        net.to(dtype)
        step(net, opt, seed)
        full = torch.promote_types(dtype, torch.float32)
        for p in net.parameters():
            state = opt.state[p]
            assert state["momentum"].dtype is full
            assert ("master" in state) == (dtype is not full)
            point = state.get("master", p.detach())
            assert point.dtype is full
            assert torch.equal(point.to(dtype), p)
            assert float(mm.Stiefel().residual(point)) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_resume_in_another_dtype_goes_on(dtype: torch.dtype) -> None:
    net = network().to(torch.bfloat16)
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    step(net, opt)
    again = network().to(dtype)
    again.load_state_dict(net.state_dict())
    resumed = mm.SteepestDescent(again, lr=0.1, momentum=0.9)
    resumed.load_state_dict(opt.state_dict())
    for ours, theirs in zip(momenta(again, resumed), momenta(net, opt), strict=True):
        assert ours.dtype is torch.promote_types(dtype, torch.float32)
        assert torch.equal(ours, theirs.to(ours.dtype))
    step(again, resumed, 1)


def test_state_that_no_step_could_use_is_refused() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    step(net, opt)
    bad: list[tuple[str, Any, str]] = [
        ("momentum", torch.full((8, 12), torch.nan), "finite momentum for '0.weight'"),
        ("momentum", {}, r"momentum of shape \(8, 12\) for '0.weight', got dict"),
    ]
    for key, value, message in bad:
        saved = copy.deepcopy(opt.state_dict())
        saved["state"][0][key] = value
        with pytest.raises(ArgumentError, match=message):
            opt.load_state_dict(saved)
    for saved, message in (
        ({"state": {}}, "must hold state and param_groups, got state"),
        (
            {**opt.state_dict(), "state": {9: {}}},
            "state of weights in its groups only, got state of 9",
        ),
    ):
        with pytest.raises(ArgumentError, match=message):
            opt.load_state_dict(saved)


@EVERY_PAIR
def test_the_state_of_every_weight_exists_from_construction_on(
    manifold: type[mm.Manifold], norm: type[mm.Norm]
) -> None:
    """So checkpoints of all ranks have the same entries, and none changes its shape or dtype later."""
    for shape in ((5, 3), (2, 3, 4)):
        atom = Weight(manifold(), norm(), shape)
        for solver in cases.solvers(mm.solvers.find_pair(manifold(), norm()))[:2]:
            opt = mm.SteepestDescent(atom, lr=0.1, momentum=0.9, solver=solver)
            made = {key: (v.shape, v.dtype) for key, v in opt.state[atom.weight].items()}
            atom.weight.grad = torch.randn(shape)
            opt.step()
            after = {key: (v.shape, v.dtype) for key, v in opt.state[atom.weight].items()}
            assert after == made


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_distributed_state_dicts_round_trip(
    flat: bool, momentum: float, dtype: torch.dtype
) -> None:
    """Also if a weight never had a gradient, and without moving a weight that is off its manifold."""
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    net = network().to(dtype)
    opt = mm.SteepestDescent(net, lr=0.1, momentum=momentum, solver=Lyapunov())
    generator = torch.Generator().manual_seed(0)
    give_gradient(net.get_submodule("2").weight, generator)  # pyright: ignore[reportArgumentType]
    opt.step()
    opt.zero_grad()
    again = copy.deepcopy(net)
    with torch.no_grad():
        again.get_submodule("0").weight.mul_(1.5)  # pyright: ignore[reportCallIssue]
    before = [p.detach().clone() for p in again.parameters()]
    resumed = mm.SteepestDescent(again, lr=0.3, momentum=momentum, solver=Lyapunov())
    saved = get_optimizer_state_dict(net, opt, options=options)
    set_optimizer_state_dict(again, resumed, saved, options=options)
    for p, weight in zip(again.parameters(), before, strict=True):
        assert torch.equal(p, weight)
    assert {group["lr"] for group in resumed.param_groups} == {0.1}
    for p, q in zip(net.parameters(), again.parameters(), strict=True):
        assert opt.state[p].keys() == resumed.state[q].keys()
        for key, value in opt.state[p].items():
            assert value.dtype is resumed.state[q][key].dtype
            if key != "master":
                assert torch.equal(value, resumed.state[q][key])
    step(again, resumed, 1)


def test_momentum_that_is_switched_off_and_on_again_is_an_average_of_recent_gradients() -> None:
    atom = Weight(mm.Euclidean(), mm.Frobenius(), (3, 2))
    opt = mm.SteepestDescent(atom, lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for momentum in (0.9, 0.0, 0.5):
        opt.param_groups[0]["momentum"] = momentum
        previous = atom.weight.grad
        give_gradient(atom.weight, generator)
        opt.step()
    assert previous is not None
    assert atom.weight.grad is not None
    expected = 0.5 * previous + 0.5 * atom.weight.grad
    torch.testing.assert_close(opt.state[atom.weight]["momentum"], expected)
