"""Caps by composition: one on each head of an adapted attention, and a bounded gain beside an orthogonal matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import modular_manifolds as mm

HEADS = 4


def attention_and_rules(radius: float) -> tuple[nn.MultiheadAttention, list[mm.Rule]]:
    torch.manual_seed(0)
    split = mm.Split(parts=3, names=("q", "k", "v"), heads=HEADS)
    ball = mm.SpectralBall(radius)
    rule = mm.Rule("in_proj_weight", manifold=ball, norm=mm.Spectral(), split=split)
    return nn.MultiheadAttention(32, HEADS, batch_first=True), [rule, mm.Rule("*")]


def head_norms(attention: nn.MultiheadAttention) -> Tensor:
    """σ_max of each head of queries, keys and values, shape (3, heads)."""
    heads = attention.in_proj_weight.detach().double().reshape(3, HEADS, -1, 32)
    return torch.linalg.matrix_norm(heads, 2)


@pytest.mark.parametrize("radius", [1.0, 0.5])
def test_each_head_has_its_own_cap(radius: float) -> None:
    """The loss wants all outputs as large as they can be: values come to the cap, and no head exceeds it."""
    attention, rules = attention_and_rules(radius)
    plan = mm.adapt(attention, rules)
    assert [row.shape for row in plan.rows[:3]] == [(HEADS, 8, 32)] * 3
    opt = mm.SteepestDescent(plan, lr=0.5)
    x = torch.randn(8, 6, 32)
    with torch.no_grad():
        attention.in_proj_weight[64:].mul_(0.5)
    for _ in range(15):
        opt.zero_grad()
        (-attention(x, x, x)[0].square().mean()).backward()
        opt.step()
        assert bool((head_norms(attention) <= radius * (1 + 1e-5)).all())
    assert float(head_norms(attention)[2].min()) > 0.95 * radius


def test_the_cap_of_trained_heads_is_their_own() -> None:
    attention, rules = attention_and_rules(1.0)
    with torch.no_grad():
        attention.in_proj_weight[:32].mul_(3.0)
    before = head_norms(attention)
    rows = mm.adapt(attention, rules, start="keep").rows[:3]
    for row, largest in zip(rows, before.amax(dim=1).tolist(), strict=True):
        assert isinstance(row.geometry.manifold, mm.SpectralBall)
        assert largest <= row.geometry.manifold.radius <= largest * (1 + 2e-4)


def test_the_bound_of_a_gain_beside_an_orthogonal_matrix_is_its_radius() -> None:
    torch.manual_seed(0)
    net = mm.Linear(8, 8) >> mm.Gain(8, radius=1.5)
    opt = mm.SteepestDescent(net, lr=0.2)
    for _ in range(20):
        opt.zero_grad()
        (-net(torch.randn(32, 8)).square().sum(dim=1).mean()).backward()
        opt.step()
    bounds = mm.lipschitz(net)
    assert bounds.declared == pytest.approx(1.5)
    assert 1.4 < bounds.certified <= 1.5 * (1 + 1e-5)
