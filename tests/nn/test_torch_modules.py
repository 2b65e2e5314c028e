"""Networks are torch modules: dtypes, copies, state dicts, seeds and gradients."""

from __future__ import annotations

import copy

import cases
import pytest
import torch
from small_networks import PAIRS, deep

import modular_manifolds as mm


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=cases.name)
def test_networks_move_between_dtypes(dtype: torch.dtype) -> None:
    net = deep().to(dtype)
    assert {p.dtype for p in net.parameters()} == {dtype}
    assert all(each.dtype == dtype for each in net(torch.randn(2, 3).to(dtype)))
    residuals = net.manifold.residual({path: p.detach() for path, p in net.named_parameters()})
    allowed = {torch.float64: 1e-5, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    assert max(float(r) for r in residuals.values()) <= allowed


def test_resetting_in_double_is_exact_to_double() -> None:
    net = deep().double()
    net.reset_parameters()
    residuals = net.manifold.residual({path: p.detach() for path, p in net.named_parameters()})
    assert max(float(r) for r in residuals.values()) <= 1e-12


def test_copies_are_independent() -> None:
    net = deep()
    twin = copy.deepcopy(net)
    x = torch.randn(4, 3)
    for a, b in zip(net(x), twin(x), strict=True):
        assert torch.equal(a, b)
    assert mm.budget(twin) == mm.budget(net)
    twin.reset_parameters()
    for (path, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert not torch.equal(p, q), path
    points = {path: p.detach() for path, p in twin.named_parameters()}
    assert all(float(r) <= 1e-5 for r in twin.manifold.residual(points).values())


def test_state_dicts_load() -> None:
    net, other = deep(), deep()
    other.load_state_dict(net.state_dict())
    x = torch.randn(4, 3)
    for a, b in zip(net(x), other(x), strict=True):
        assert torch.equal(a, b)


def test_resetting_keeps_parameters_and_follows_the_seed() -> None:
    net = deep()
    kept = list(net.parameters())
    torch.manual_seed(3)
    net.reset_parameters()
    first = [p.detach().clone() for p in net.parameters()]
    torch.manual_seed(3)
    net.reset_parameters()
    assert all(p is q for p, q in zip(kept, net.parameters(), strict=True))
    assert all(torch.equal(a, p.detach()) for a, p in zip(first, net.parameters(), strict=True))


@pytest.mark.parametrize(("manifold", "norm"), PAIRS, ids=cases.name)
def test_weights_start_on_their_manifold_or_in_their_unit_ball(
    manifold: mm.Manifold, norm: mm.Norm
) -> None:
    atom = mm.Linear(5, 4, manifold=manifold, norm=norm)
    assert atom.weight.shape == (4, 5)
    assert float(manifold.residual(atom.weight.detach())) <= 1e-6
    if not manifold.compact:
        assert float(norm.value(atom.weight.detach())) == pytest.approx(1.0, abs=2e-3)


def test_gradients_reach_every_weight() -> None:
    net = deep()
    first, second = net(torch.randn(8, 3))
    (first.square().sum() + second.square().sum()).backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in net.parameters())
