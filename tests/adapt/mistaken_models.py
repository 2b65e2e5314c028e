"""Models that nobody can adapt, or not in this way."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune


def mlp() -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(up=nn.Linear(8, 16), act=nn.ReLU(), down=nn.Linear(16, 8), head=nn.Linear(8, 3))
    )


def frozen() -> nn.Module:
    net = mlp()
    net.get_submodule("up").requires_grad_(False)
    return net


def all_frozen() -> nn.Module:
    return mlp().requires_grad_(False)


def trained() -> nn.Module:
    net = mlp()
    weight = net.get_parameter("down.weight")
    with torch.no_grad():
        weight += 2 * torch.ones(8, 1) @ torch.ones(1, 16)
    return net


def padded() -> nn.Module:
    return nn.Sequential(nn.Embedding(9, 8, padding_idx=0), nn.Linear(8, 3))


def pruned() -> nn.Module:
    net = mlp()
    prune.l1_unstructured(net.get_submodule("up"), "weight", 0.5)
    return net


def normed() -> nn.Module:
    net = mlp()
    parametrizations.weight_norm(net.get_submodule("up"))
    return net


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def parametrized() -> nn.Module:
    net = mlp()
    parametrize.register_parametrization(net.get_submodule("up"), "weight", Doubled())
    return net


class Stack(nn.Module):
    """A module that nobody knows, with three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 4, 5))


def not_finite() -> nn.Module:
    net = mlp()
    with torch.no_grad():
        net.get_parameter("up.weight")[0, 0] = torch.nan
    return net


def shared_memory() -> nn.Module:
    net = mlp()
    net.get_submodule("down").weight = nn.Parameter(
        net.get_parameter("up.weight").detach().view(8, 16)
    )
    return net
