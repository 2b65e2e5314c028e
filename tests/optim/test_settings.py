"""Settings are held to the constructor's rules at each step, whoever wrote them into a group."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from weights import EVERY_PAIR, Weight

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError

NAN, INF = float("nan"), float("inf")

REFUSED: list[tuple[str, Any, str]] = [
    *(
        ("lr", bad, "lr must be finite and at least 0")
        for bad in (NAN, INF, -0.1, "0.1", None, True)
    ),
    *(
        ("shares", [1.0, bad], r"shares\[1\] must be finite and at least 0")
        for bad in (NAN, INF, -1.0, None)
    ),
    ("shares", [1.0], "shares must be a list of one value for each of the 2 parameters, got 1"),
    ("shares", 1.0, "shares must be a list of one value for each of the 2 parameters, got 1.0"),
    ("share", 1.0, r"share is not a key of a group.*write into group\['shares'\]"),
    ("name", "x", r"name is not a key of a group.*write into group\['param_names'\]"),
    ("shape", [2], r"shape is not a key of a group.*write into group\['shapes'\]"),
    *(("momentum", bad, r"momentum must lie in \[0, 1\)") for bad in (NAN, 1.0, 1.045, -0.1, INF)),
    *(
        ("weight_decay", bad, "weight_decay must be finite and at least 0")
        for bad in (NAN, -1.0, INF)
    ),
    ("weight_decay", 0.5, "on Stiefel the decay is normal to the manifold and has no effect"),
    ("lr", torch.tensor([0.1]), r"lr must be one real .* got a tensor of shape \(1,\)"),
    ("lr", torch.tensor(1), r"lr must be one real .* got a tensor of shape \(\) and torch.int64"),
    ("lr", torch.tensor(NAN), "lr must be finite and at least 0, got nan"),
    ("lr", torch.tensor(-1.0), "lr must be finite and at least 0, got -1"),
    ("lr", 1e38, r"lr · share must be below 1e\+30"),
    ("shares", [1.0, 1e38], r"lr · share must be below 1e\+30"),
]


def network() -> mm.Module:
    return mm.Linear(5, 4) >> mm.ReLU() >> mm.Linear(4, 3)


def with_gradients(net: mm.Module) -> None:
    for p in net.parameters():
        p.grad = torch.ones_like(p)


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_what_is_written_into_a_group_is_refused_before_anything_moves(
    name: str, value: Any, message: str
) -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9, nesterov=True)
    with_gradients(net)
    opt.step()
    before = [p.detach().clone() for p in net.parameters()]
    buffers = [opt.state[p]["momentum"].clone() for p in net.parameters()]
    opt.param_groups[0][name] = value
    with pytest.raises(ArgumentError, match=rf"param_groups\[0\] of '.*weight': .*{message}"):
        opt.step()
    for p, weight, buffer in zip(net.parameters(), before, buffers, strict=True):
        assert torch.equal(p, weight)
        assert torch.equal(opt.state[p]["momentum"], buffer)


def test_a_setting_that_was_removed_is_named() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1)
    for name in ("lr", "shares", "param_names", "momentum", "weight_decay", "nesterov", "norm"):
        removed = opt.param_groups[0].pop(name)
        with_gradients(net)
        with pytest.raises(ArgumentError, match=rf"param_groups\[0\].*{name} must be set"):
            opt.step()
        opt.param_groups[0][name] = removed


def test_a_name_that_was_changed_is_refused() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1)
    opt.param_groups[0]["param_names"][1] = "other"
    with_gradients(net)
    message = r"param_groups\[0\]: param_names must be among 0\.weight, 2\.weight, got 'other'"
    with pytest.raises(ArgumentError, match=message):
        opt.step()


@pytest.mark.parametrize("key", ["manifold", "norm"])
def test_a_geometry_that_was_changed_is_refused(key: str) -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1)
    opt.param_groups[0][key] = {"name": "sphere", "radius": 1.0}
    with_gradients(net)
    with pytest.raises(ArgumentError, match=rf"param_groups\[0\]: {key} must be .*, the {key} of"):
        opt.step()


def test_nesterov_needs_momentum_in_a_group_too() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9, nesterov=True)
    opt.param_groups[0]["momentum"] = 0.0
    with_gradients(net)
    with pytest.raises(ArgumentError, match=r"of '0\.weight', '2\.weight': nesterov needs"):
        opt.step()


@EVERY_PAIR
def test_a_schedule_that_gives_nan_moves_no_weight(
    manifold: type[mm.Manifold], norm: type[mm.Norm]
) -> None:
    atom = Weight(manifold(), norm(), (4, 3))
    opt = mm.SteepestDescent(atom, lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: NAN if step else 1.0)
    atom.weight.grad = torch.randn(4, 3)
    opt.step()
    schedule.step()
    before = atom.weight.detach().clone()
    with pytest.raises(ArgumentError, match="lr must be finite and at least 0, got nan"):
        opt.step()
    assert torch.equal(atom.weight, before)


@pytest.mark.parametrize("number", [np.float32, np.float64, np.int64, int, float])
def test_numbers_of_other_kinds_are_taken_and_kept_as_floats(number: Callable[[int], Any]) -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=number(1), momentum=number(0), weight_decay=number(0))
    for group in opt.param_groups:
        group["lr"], group["shares"] = number(1), [number(2)] * 2
    with_gradients(net)
    opt.step()
    for group in opt.state_dict()["param_groups"]:
        assert {type(each) for each in (group["lr"], group["momentum"], *group["shares"])} == {
            float
        }
        json.dumps(group)


def test_a_state_dict_is_held_to_the_same_rules_and_changes_nothing() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    for name, value, message in REFUSED:
        saved = opt.state_dict()
        saved["param_groups"][0][name] = value
        with pytest.raises(ArgumentError, match=message):
            opt.load_state_dict(saved)
        assert [group["lr"] for group in opt.param_groups] == [0.1]


def test_a_schedule_of_the_decay_acts_in_euclidean_space() -> None:
    atom = Weight(mm.Euclidean(), mm.Frobenius(), (3, 2))
    opt = mm.SteepestDescent(atom, lr=0.1)
    before = atom.weight.detach().clone()
    opt.param_groups[0]["weight_decay"] = 0.5
    atom.weight.grad = torch.zeros(3, 2)
    opt.step()
    torch.testing.assert_close(atom.weight.detach(), before * (1 - 0.1 * 0.5))


def test_complex_weights_and_sparse_gradients_are_refused_in_words() -> None:
    for momentum in (0.0, 0.9):
        net = network()
        opt = mm.SteepestDescent(net, lr=0.1, momentum=momentum)
        with_gradients(net)
        first, last = net.parameters()
        before = first.detach().clone()
        index, values = torch.tensor([[1, 2]]), torch.ones(2, 4)
        last.grad = torch.sparse_coo_tensor(index, values, last.shape, check_invariants=True)
        with pytest.raises(ArgumentError, match=r"gradient of '2\.weight' must be dense.*to_dense"):
            opt.step()
        assert torch.equal(first, before)
        last.data = last.data.to(torch.complex64)
        last.grad = torch.ones_like(last)
        with pytest.raises(ArgumentError, match=r"weight '2\.weight' must be real, got torch.comp"):
            opt.step()
        assert torch.equal(first, before)
