"""A network of two layers, its step and its momenta."""

from __future__ import annotations

import torch
from torch import Tensor
from weights import give_gradient

import modular_manifolds as mm


def network(width: int = 8) -> mm.Module:
    return mm.Linear(12, width) >> mm.ReLU() >> mm.Linear(width, 4)


def step(net: mm.Module, opt: mm.SteepestDescent, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        give_gradient(p, generator)
    opt.step()


def momenta(net: mm.Module, opt: mm.SteepestDescent) -> list[Tensor]:
    return [opt.state[p]["momentum"] for p in net.parameters()]
