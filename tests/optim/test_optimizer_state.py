"""State: it exists from construction on, follows its weight, and is matched as torch matches it."""

from __future__ import annotations

import copy
from typing import Any

import cases
import pytest
import torch
from modular_manifolds_bench.baselines import Lyapunov
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from weights import EVERY_PAIR, Weight, as_one_group_a_weight, give_gradient

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError


def network(width: int = 8) -> mm.Module:
    return mm.Linear(12, width) >> mm.ReLU() >> mm.Linear(width, 4)


def step(net: mm.Module, opt: mm.SteepestDescent, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        give_gradient(p, generator)
    opt.step()


def momenta(net: mm.Module, opt: mm.SteepestDescent) -> list[Tensor]:
    return [opt.state[p]["momentum"] for p in net.parameters()]


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
