"""Gradients of zero, of any size and of NaN: what moves, and what does not."""

from __future__ import annotations

import copy

import pytest
import torch
from four_layers import backward, network, snapshot

import modular_manifolds as mm
from modular_manifolds.errors import (
    NonFiniteError,
)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nonfinite_gradient_moves_nothing(bad: float) -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)
    backward(net)
    opt.step()
    before, state = snapshot(net), copy.deepcopy(opt.state_dict())
    backward(net)
    last = list(net.parameters())[-1]
    assert last.grad is not None
    last.grad[0, 0] = bad
    with pytest.raises(NonFiniteError, match=r"the gradient of '6\.weight' must be finite, got"):
        opt.step()
    for path, weight in snapshot(net).items():
        assert torch.equal(weight, before[path])
    after = opt.state_dict()
    for index, each in state["state"].items():
        for key, value in each.items():
            assert torch.equal(value, after["state"][index][key])


def test_nonfinite_gradient_may_be_skipped_and_is_counted() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1, on_nonfinite="skip")
    before = snapshot(net)
    backward(net)
    first = next(net.parameters())
    assert first.grad is not None
    first.grad.fill_(torch.nan)
    opt.step()
    assert opt.skipped == 1
    assert all(torch.equal(w, before[path]) for path, w in snapshot(net).items())


def test_gradients_are_not_written_into() -> None:
    net = network(mm.Euclidean(), mm.Frobenius())
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)
    backward(net)
    before = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    opt.step()
    after = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_zero_gradient_leaves_weights_where_they_are() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1)
    before = snapshot(net)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    opt.step()
    for path, weight in snapshot(net).items():
        torch.testing.assert_close(weight, before[path], atol=1e-6, rtol=0)


def test_weights_without_a_gradient_are_left_alone() -> None:
    net = network()
    opt = mm.SteepestDescent(net, lr=0.1)
    before = snapshot(net)
    opt.step()
    assert all(torch.equal(w, before[path]) for path, w in snapshot(net).items())


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_the_size_of_the_gradient_does_not_matter(scale: float) -> None:
    net = network()
    twin = copy.deepcopy(net)
    opt, other = mm.SteepestDescent(net, lr=0.1), mm.SteepestDescent(twin, lr=0.1)
    backward(net)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert p.grad is not None
        q.grad = p.grad * scale
    opt.step()
    other.step()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0)
