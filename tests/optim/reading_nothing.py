"""A network whose step reads no number, and its gradients."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor
from weights import Weight, give_gradient

import modular_manifolds as mm


def network(
    manifold: mm.Manifold, norm: mm.Norm, shape: tuple[int, ...] = (6, 4), count: int = 2
) -> mm.Module:
    first, *others = (Weight(manifold, norm, shape) for _ in range(count))
    return reduce(lambda f, g: f >> g, others, first)


def give_gradients(net: mm.Module, seed: int) -> None:
    """Gradients that leave out a unit now and then, and once a whole weight."""
    generator = torch.Generator().manual_seed(seed)
    for number, p in enumerate(net.parameters()):
        give_gradient(p, generator)
        assert p.grad is not None
        # Not at first: weights in bfloat16 are off their manifolds until they have moved.
        if seed == number + 1:
            p.grad[0] = 0.0
        if seed == number + 3:
            p.grad.zero_()


def snapshot(net: mm.Module, opt: mm.SteepestDescent, *without: str) -> list[Tensor]:
    found = [p.detach().clone() for p in net.parameters()]
    entries = (each for p in net.parameters() for each in sorted(opt.state[p].items()))
    return found + [value.clone() for key, value in entries if key not in without]
