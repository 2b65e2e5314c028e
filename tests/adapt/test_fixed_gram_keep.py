"""A trained model whose weights are only turned: the loss falls, and no singular value changes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import modular_manifolds as mm


def trained() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A perceptron after some steps of Adam, and its data."""
    x = torch.randn(256, 12)
    y = (x[:, :3] * x[:, 3:6]).sum(dim=1, keepdim=True)
    net = nn.Sequential(
        nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
    )
    adam = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        adam.zero_grad()
        nn.functional.mse_loss(net(x), y).backward()
        adam.step()
    return net, x, y


def test_twenty_steps_keep_every_singular_value_while_the_loss_falls() -> None:
    torch.manual_seed(0)
    net, x, y = trained()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    rule = mm.Rule(nn.Linear, manifold=mm.FixedGram())
    plan = mm.adapt(net, [rule], start="keep", example_inputs=x[:32], progress=False)
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    matrices = [row for row in plan.rows if before[row.name].dim() == 2]
    assert len(matrices) == 3
    sigma = {row.name: torch.linalg.svdvals(before[row.name].double()) for row in matrices}
    for row in matrices:
        assert isinstance(row.geometry.manifold, mm.FixedGram)
        largest, radius = float(sigma[row.name][0]), row.geometry.manifold.radius
        assert largest <= radius <= largest * (1 + 2e-4)
    opt = mm.SteepestDescent(plan, lr=0.05, momentum=0.9, tangent_momentum=True)
    losses: list[float] = []
    for _ in range(20):
        opt.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        losses.append(loss.item())
        loss.backward()
        opt.step()
    assert losses[-1] < 0.7 * losses[0]
    for row in matrices:
        now = dict(net.named_parameters())[row.name].detach()
        assert float((now - before[row.name]).norm() / before[row.name].norm()) > 1e-2
        worst = (torch.linalg.svdvals(now.double()) / sigma[row.name] - 1).abs().max()
        assert float(worst) <= 1e-5, row.name


def test_stacks_keep_one_radius_and_zeros_are_refused() -> None:
    """Heads share a row: their Gram matrices are their own, and the radius is the largest singular value of all."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2)
    rules = [mm.Rule("in_proj_weight", manifold=mm.FixedGram()), mm.Rule("*")]
    plan = mm.adapt(attention, rules, start="keep")
    row = next(each for each in plan.rows if each.name.startswith("in_proj_weight"))
    assert isinstance(row.geometry.manifold, mm.FixedGram)
    assert len(row.shape) == 3
