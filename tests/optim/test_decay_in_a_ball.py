"""Weight decay in a ball: the bound holds after every step, and without a gradient the decay is all that moves a weight."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from weights import Weight, give_gradient

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError

RADIUS, LR, DECAY = 1.5, 0.2, 0.7

SURFACES = [mm.Sphere(), mm.Oblique(), mm.BalancedRows(), mm.Stiefel(), mm.FixedGram()]


def spectral_norm(weight: Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight.detach().double(), 2).max())


def linear() -> mm.Linear:
    torch.manual_seed(0)
    net = mm.Linear(6, 5, manifold=mm.SpectralBall(radius=RADIUS))
    assert spectral_norm(net.weight) == pytest.approx(RADIUS)
    return net


@pytest.fixture(params=[False, True], ids=["reading", "reading nothing"])
def either_step(request: pytest.FixtureRequest) -> None:
    if request.param:
        request.getfixturevalue("without_reading")


@pytest.mark.usefixtures("either_step")
def test_the_certified_bound_never_exceeds_the_radius() -> None:
    """Also if every gradient pulls outwards, with and without momentum."""
    for how in ({}, {"momentum": 0.9, "nesterov": True}):
        net = linear()
        opt = mm.SteepestDescent(net, LR, weight_decay=DECAY, **how)
        generator = torch.Generator().manual_seed(0)
        for number in range(12):
            if number % 2:
                give_gradient(net.weight, generator)
            else:
                net.weight.grad = -net.weight.detach().clone()
            opt.step()
            assert spectral_norm(net.weight) <= RADIUS * (1 + 1e-6)
        bounds = mm.lipschitz(net)
        assert bounds.certified <= bounds.declared * (1 + 1e-6) == pytest.approx(RADIUS)


@pytest.mark.usefixtures("either_step")
def test_without_a_gradient_the_norm_decays_as_the_power() -> None:
    net = linear()
    opt = mm.SteepestDescent(net, LR, weight_decay=DECAY)
    before = net.weight.detach().clone()
    for number in range(1, 11):
        net.weight.grad = torch.zeros_like(net.weight)
        opt.step()
        factor = (1 - LR * DECAY) ** number
        torch.testing.assert_close(net.weight.detach(), factor * before, rtol=1e-5, atol=0)
        assert spectral_norm(net.weight) == pytest.approx(factor * RADIUS, rel=1e-5)


@pytest.mark.usefixtures("either_step")
def test_a_step_begins_where_the_decay_leads() -> None:
    """`W ← cap((1 − ηλ) W + ηA)`: a step outwards of length η from the boundary ends at `(1 − ηλ) r + η`, or at r."""
    for decay, expected in ((0.3, RADIUS), (DECAY, (1 - LR * DECAY) * RADIUS + LR)):
        net = linear()
        opt = mm.SteepestDescent(net, LR, weight_decay=decay)
        net.weight.grad = -net.weight.detach().clone()
        opt.step()
        assert spectral_norm(net.weight) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("manifold", SURFACES, ids=str)
def test_surfaces_refuse_it_in_words(manifold: mm.Manifold) -> None:
    norm = mm.RowRMS() if isinstance(manifold, mm.Oblique | mm.BalancedRows) else mm.Spectral()
    with pytest.raises(
        ArgumentError, match=r"the decay is normal to the manifold and has no effect"
    ):
        mm.SteepestDescent(Weight(manifold, norm, (5, 4)), LR, weight_decay=DECAY)
