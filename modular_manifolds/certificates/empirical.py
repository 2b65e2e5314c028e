"""The largest slope that could be found: a lower bound on every true Lipschitz constant."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from modular_manifolds.composition.space import Space, VectorNorm
from modular_manifolds.nn.module import Module


def vector_norm(x: Tensor, norm: VectorNorm) -> Tensor:
    """The norm of each vector (last dimension)."""
    if norm == "rms":
        return x.square().mean(dim=-1).sqrt()
    order = {"l2": 2.0, "l1": 1.0, "linf": float("inf")}[norm]
    return torch.linalg.vector_norm(x, ord=order, dim=-1)


def largest_slope(
    net: Module,
    space: Space,
    *,
    input_norm: VectorNorm,
    output_norm: VectorNorm,
    points: Tensor | None,
    starts: int,
    iterations: int,
    seed: int,
) -> float:
    """The largest `‖J(x) v‖_out / ‖v‖_in` found over points x and directions v, in float64.

    At each point the direction is improved by power iteration on `JᵀJ`. Whatever v comes out, the
    quotient is a slope that the network really has at x, up to float64 rounding. The points are
    `points`, or random ones of several sizes.
    """
    network = copy.deepcopy(net).double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    if points is None:
        at = torch.randn(starts, space.size, generator=generator, dtype=torch.float64)
        at = at * torch.logspace(-1, 1, starts, dtype=torch.float64).unsqueeze(-1)
    else:
        at = points.detach().to("cpu", torch.float64).flatten(1)[:starts]
    at = at.to(next((p.device for p in network.parameters()), at.device))
    v = torch.randn(at.shape, generator=generator, dtype=torch.float64).to(at.device)
    best = 0.0
    for _ in range(iterations):
        v = v / torch.linalg.vector_norm(v, dim=-1, keepdim=True).clamp_min(1e-300)
        forward = torch.func.jvp(network, (at,), (v,))[1]
        lengths = vector_norm(v, input_norm)
        slopes = torch.where(lengths > 0, vector_norm(forward, output_norm) / lengths, 0.0)
        best = max(best, float(slopes.detach().max()))
        v = torch.func.vjp(network, at)[1](forward)[0]
        if not bool((v != 0).any()):
            break
    return best
