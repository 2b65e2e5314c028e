"""A network of four layers, two of them equal, with its gradients and its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

import modular_manifolds as mm


def network(manifold: mm.Manifold | None = None, norm: mm.Norm | None = None) -> mm.Module:
    """Two equal layers (stepped in one batch) and two others."""
    ends = {"source_norm": "l2", "target_norm": "l2"}

    def layer(into: int, out: int, mass: float = 1.0) -> mm.Linear:
        return mm.Linear(into, out, manifold=manifold, norm=norm, mass=mass, **ends)  # pyright: ignore[reportArgumentType]

    return (
        layer(6, 8)
        >> mm.ReLU()
        >> layer(8, 8)
        >> mm.Abs()
        >> layer(8, 8)
        >> mm.MaxMin()
        >> layer(8, 3, mass=2.0)
    )


def backward(net: nn.Module, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    parameter = next(net.parameters())
    x = torch.randn(32, 6, generator=generator).to(parameter.dtype)
    y = torch.randint(0, 3, (32,), generator=generator)
    net.zero_grad()
    loss = functional.cross_entropy(net(x).float(), y)
    loss.backward()
    return loss.detach()


def snapshot(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in net.named_parameters()}
