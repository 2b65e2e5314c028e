"""State that is loaded is matched as torch matches it, and state that does not fit is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from modular_manifolds_bench.baselines import Lyapunov
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from two_layers import momenta, network, step
from weights import Weight, as_one_group_a_weight

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_resume_at_another_width_is_refused_with_both_shapes(momentum: float) -> None:
    net, wider = network(8), network(10)
    opt = mm.SteepestDescent(net, lr=0.1, momentum=momentum)
    step(net, opt)
    resumed = mm.SteepestDescent(wider, lr=0.1, momentum=momentum)
    step(wider, resumed)
    before = copy.deepcopy(resumed.state_dict())
    message = r"must be for '0\.weight' of shape \(10, 12\), got \(8, 12\)"
    with pytest.raises(ArgumentError, match=message):
        resumed.load_state_dict(opt.state_dict())
    assert repr(resumed.state_dict()) == repr(before)


def test_state_of_before_shapes_were_saved_is_refused_by_its_tensors() -> None:
    net, wider = network(8), network(10)
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9, solver=Lyapunov())
    step(net, opt)
    saved = as_one_group_a_weight(opt.state_dict())
    for group in saved["param_groups"]:
        del group["shape"]
    resumed = mm.SteepestDescent(wider, lr=0.1, momentum=0.9, solver=Lyapunov())
    message = r"momentum of shape \(10, 12\) for '0\.weight', got \(8, 12\)"
    with pytest.raises(ArgumentError, match=message):
        resumed.load_state_dict(saved)
    for entries in saved["state"].values():
        del entries["momentum"]
    with pytest.raises(
        ArgumentError, match=r"dual of shape \(10, 10\) for '0\.weight', got \(8, 8\)"
    ):
        resumed.load_state_dict(saved)
    twin = mm.SteepestDescent(copy.deepcopy(net), lr=0.1, momentum=0.9, solver=Lyapunov())
    twin.load_state_dict(saved)
    assert twin.param_groups[0]["shapes"] == [[8, 12], [4, 8]]


def test_a_state_dict_with_one_group_a_weight_is_read() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9, nesterov=True)
    step(net, opt)
    saved = as_one_group_a_weight(copy.deepcopy(opt.state_dict()))
    for group in saved["param_groups"]:
        group["lr"], group["initial_lr"] = 0.2, 0.5
    saved["param_groups"][1]["lr"] = 0.4
    again = copy.deepcopy(net)
    resumed = mm.SteepestDescent(again, lr=0.3)
    resumed.load_state_dict(saved)
    (ours,), (theirs,) = resumed.param_groups, opt.param_groups
    assert ours.keys() == theirs.keys() | {"initial_lr"}
    assert (ours["lr"], ours["momentum"], ours["nesterov"]) == (0.2, 0.9, True)
    # The step of a weight is lr · share.
    first, last = theirs["shares"]
    assert ours["shares"] == pytest.approx([first, 2 * last])
    for p, q in zip(momenta(again, resumed), momenta(net, opt), strict=True):
        assert torch.equal(p, q)
    step(again, resumed)


def test_a_state_dict_with_one_group_a_weight_must_fit_today_s_groups() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    saved = as_one_group_a_weight(opt.state_dict())
    changes: list[tuple[str, Any, str]] = [
        ("momentum", 0.5, "one momentum for '0.weight' and '2.weight', which are one group now"),
        ("nesterov", True, "one nesterov for '0.weight' and '2.weight'"),
        ("name", "other", "must be for the weights 0.weight, 2.weight, got 0.weight, other"),
        ("shape", [7, 7], r"must be for '2.weight' of shape \(4, 8\), got \(7, 7\)"),
        ("params", [1, 2], "must hold one weight in the group '2.weight', got 2"),
        ("share", -1.0, r"shares\[1\] must be finite and at least 0"),
    ]
    for key, value, message in changes:
        wrong = copy.deepcopy(saved)
        wrong["param_groups"][1][key] = value
        with pytest.raises(ArgumentError, match=message):
            opt.load_state_dict(wrong)


def test_state_of_another_geometry_is_refused() -> None:
    def build(manifold: mm.Manifold, norm: mm.Norm) -> mm.SteepestDescent:
        return mm.SteepestDescent(Weight(manifold, norm, (4, 3)), lr=0.1, momentum=0.9)

    opt = build(mm.Stiefel(), mm.Spectral())
    opt.load_state_dict(build(mm.Stiefel(), mm.Spectral()).state_dict())
    message = r"must be for the manifold .*'stiefel', 'radius': 1.0}.* got .*'radius': 2.0"
    with pytest.raises(ArgumentError, match=message):
        opt.load_state_dict(build(mm.Stiefel(radius=2.0), mm.Spectral()).state_dict())
    with pytest.raises(
        ArgumentError, match=r"must be for the norm .*'spectral'.* got .*'frobenius'"
    ):
        opt.load_state_dict(build(mm.Stiefel(), mm.Frobenius()).state_dict())


def test_a_weight_may_have_a_group_of_its_own() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    (group,) = opt.param_groups
    name, weight, _, share = (
        group[key].pop() for key in ("param_names", "params", "shapes", "shares")
    )
    opt.add_param_group({"params": [weight], "param_names": [name], "momentum": 0.5})
    step(net, opt)
    last = opt.param_groups[1]
    assert (last["shares"], last["shapes"], last["lr"]) == ([share], [[4, 8]], 0.1)
    assert last["manifold"] == group["manifold"]
    assert weight.grad is not None
    torch.testing.assert_close(opt.state[weight]["momentum"], 0.5 * weight.grad)
    again = mm.SteepestDescent(network(), lr=0.1)
    with pytest.raises(ArgumentError, match="must be for the weights"):
        again.load_state_dict(
            {**opt.state_dict(), "param_groups": opt.state_dict()["param_groups"][:1]}
        )


def swapped(saved: dict[str, Any], keys: list[Any]) -> dict[str, Any]:
    """The same state under other ids."""
    saved = copy.deepcopy(saved)
    (group,) = saved["param_groups"]
    ids, group["params"] = group["params"], keys
    saved["state"] = {key: saved["state"][old] for old, key in zip(ids, keys, strict=True)}
    return saved


@pytest.mark.parametrize("keys", [[0, 1], [1, 0], [7, 3], ["0.weight", "2.weight"]])
def test_state_is_matched_by_the_ids_that_the_groups_list(keys: list[Any]) -> None:
    net = mm.Linear(8, 8) >> mm.ReLU() >> mm.Linear(8, 8)
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    step(net, opt)
    again = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    again.load_state_dict(swapped(opt.state_dict(), keys))
    for ours, theirs in zip(momenta(net, again), momenta(net, opt), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()


def test_load_hooks_have_the_last_word() -> None:
    """In torch a hook before the load may change what is loaded, and one after it sees and changes the result."""
    net = network().to(torch.bfloat16)
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    step(net, opt)
    again = mm.SteepestDescent(net, lr=0.1, momentum=0.9)

    def before(_: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
        saved = copy.deepcopy(saved)
        saved["state"][0]["momentum"].fill_(3.0)
        return saved

    def after(optimizer: torch.optim.Optimizer) -> None:
        weight = optimizer.param_groups[0]["params"][1]
        assert optimizer.state[weight]["momentum"].dtype is torch.float32
        optimizer.state[weight]["momentum"].fill_(5.0)

    handles = [
        again.register_load_state_dict_pre_hook(before),
        again.register_load_state_dict_post_hook(after),
    ]
    again.load_state_dict(opt.state_dict())
    assert [float(each.mean()) for each in momenta(net, again)] == [3.0, 5.0]
    for handle in handles:
        handle.remove()
    again.load_state_dict(opt.state_dict())
    for ours, theirs in zip(momenta(net, again), momenta(net, opt), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_checkpoint_that_is_loaded_in_place_is_compared_with_the_optimiser_s_own_geometries(
    flatten: bool, tmp_path: Path
) -> None:
    """`torch.distributed.checkpoint` writes what it loads into the state dict of the optimiser that goes on."""
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)

    def begun(manifold: mm.Manifold) -> tuple[mm.Module, mm.SteepestDescent]:
        net = mm.Linear(4, 4, manifold=manifold, norm=mm.Spectral())
        return net, mm.SteepestDescent(net, lr=0.1, momentum=0.9)

    weights, state = get_state_dict(*begun(mm.Stiefel()), options=options)
    save({"net": weights, "opt": state}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    net, opt = begun(mm.SpectralBall())
    weights, state = get_state_dict(net, opt, options=options)
    load({"net": weights, "opt": state}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    with pytest.raises(ArgumentError, match=r"must be for the manifold .*spectral_ball"):
        set_optimizer_state_dict(net, opt, state, options=options)
    assert opt.param_groups[0]["manifold"]["name"] == "spectral_ball"
