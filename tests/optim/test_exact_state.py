"""The state of the optimiser round-trips exactly, shares no storage, and holds tensors and JSON values only."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from four_layers import backward, network, snapshot
from torch import Tensor
from weights import named

import modular_manifolds as mm
from modular_manifolds.errors import (
    ArgumentError,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("tangent", [False, True])
def test_state_dict_round_trip_is_exact(dtype: torch.dtype, tangent: bool) -> None:
    def build(net: mm.Module) -> mm.SteepestDescent:
        return mm.SteepestDescent(
            net, lr=0.1, momentum=0.9, nesterov=True, tangent_momentum=tangent
        )

    net = network().to(dtype)
    opt = build(net)
    for seed in range(3):
        backward(net, seed)
        opt.step()
    twin = copy.deepcopy(net)
    resumed = build(twin)
    resumed.load_state_dict(copy.deepcopy(opt.state_dict()))
    for seed in range(3, 6):
        backward(net, seed)
        backward(twin, seed)
        opt.step()
        resumed.step()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_loading_does_not_share_storage() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    backward(net)
    opt.step()
    saved = opt.state_dict()
    kept = copy.deepcopy(saved)
    twin = mm.SteepestDescent(copy.deepcopy(net), lr=0.1, momentum=0.9)
    twin.load_state_dict(saved)
    for p in named(twin).values():
        p.grad = torch.ones_like(p)
    twin.step()
    for index, state in saved["state"].items():
        assert torch.equal(state["momentum"], kept["state"][index]["momentum"])


def test_state_holds_tensors_and_json_values_only() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    backward(net)
    opt.step()
    state = opt.state_dict()
    for each in state["state"].values():
        assert all(isinstance(value, Tensor) for value in each.values())
    for group in state["param_groups"]:
        json.dumps(group)


def test_state_of_another_network_is_refused() -> None:
    saved = mm.SteepestDescent(network(), lr=0.1).state_dict()
    other = mm.SteepestDescent(mm.Linear(3, 3), lr=0.1)
    with pytest.raises(ArgumentError, match=r"must be for the weights weight, got 0\.weight"):
        other.load_state_dict(saved)


def test_bfloat16_weights_keep_a_float32_master() -> None:
    net = network().to(torch.bfloat16)
    opt = mm.SteepestDescent(net, lr=1e-4)
    for _ in range(20):
        backward(net)
        opt.step()
    masters = {name: opt.state[p]["master"] for name, p in named(opt).items()}
    for path, p in net.named_parameters():
        assert masters[path].dtype == torch.float32
        assert torch.equal(masters[path].to(torch.bfloat16), p)
        assert float(mm.Stiefel().residual(masters[path])) <= 1e-5


def test_a_weight_that_was_loaded_is_not_undone_by_its_master_copy() -> None:
    net = network().to(torch.bfloat16)
    opt = mm.SteepestDescent(net, lr=1e-6)
    backward(net)
    opt.step()
    loaded = snapshot(network().to(torch.bfloat16))
    net.load_state_dict(loaded)
    backward(net)
    opt.step()
    for path, weight in snapshot(net).items():
        torch.testing.assert_close(weight, loaded[path], atol=0.02, rtol=0)


def test_a_copied_optimiser_steps_alike() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    backward(net)
    opt.step()
    twin, other = copy.deepcopy((net, opt))
    backward(net, 1)
    backward(twin, 1)
    opt.step()
    other.step()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
