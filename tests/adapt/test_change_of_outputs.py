"""The learning rate is a size: how far a step moves the outputs, to first order, also on data that measured nothing."""

from __future__ import annotations

import pytest
import torch
from long_tests import mostly_long
from torch import Tensor
from torch.func import functional_call, jvp
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from zoo import TOKENS, PlainGPT

import modular_manifolds as mm

STEPS = 50
MAX_CHANGE = 1.5
"""How far the change may exceed the rate: responses are estimates, and are those of the start."""


def text(length: int, seed: int) -> Tensor:
    """Windows of a text in which every token follows from the one before, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(TOKENS, (8, 1), generator=generator)]
    for _ in range(length - 1):
        noise = torch.randint(3, (8, 1), generator=generator)
        tokens.append((7 * tokens[-1] + 3 + noise) % TOKENS)
    return torch.cat(tokens, dim=1)


@pytest.mark.parametrize("lr", mostly_long([0.25, 1.0], usual=lambda lr: lr == 1.0))
@pytest.mark.parametrize("hidden", mostly_long([mm.Stiefel(), mm.SpectralBall()], usual=2), ids=str)
def test_a_step_moves_the_outputs_by_its_rate_at_most(hidden: mm.Manifold, lr: float) -> None:
    torch.manual_seed(0)
    net = PlainGPT()
    rules = [mm.Rule("wte.weight"), mm.Rule(torch.nn.Linear, manifold=hidden), mm.Rule("*")]
    plan = mm.adapt(net, rules, example_inputs=text(8, seed=1), progress=False)
    opt = mm.SteepestDescent(plan, lr, momentum=0.95, nesterov=True)
    other = text(8, seed=2)
    ratios: list[float] = []
    for step in range(STEPS):
        batch = text(9, seed=3 + step)
        opt.zero_grad()
        logits = net(batch[:, :-1])
        functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
        before = {name: each.detach().clone() for name, each in net.named_parameters()}
        opt.step()
        change = {name: each.detach() - before[name] for name, each in net.named_parameters()}
        with sdpa_kernel(SDPBackend.MATH):
            moved = jvp(lambda p: functional_call(net, p, (other,)), (before,), (change,))[1]
        ratios.append(float(moved.square().mean().sqrt()) / lr)
    assert max(ratios) <= MAX_CHANGE
    assert max(ratios) >= 0.1
