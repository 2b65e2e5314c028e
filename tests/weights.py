"""An atom with a weight of any shape and any geometry, for tests of the optimiser: its gradients are set by hand."""

from __future__ import annotations

import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.solvers import TABLE

PAIRS = [(manifold, norm) for manifold, norm in TABLE]
"""Every pair that has a solver."""


class Weight(mm.Atom):
    """A weight alone. It declares what a tree wants to know, and its forward gives the weight back."""

    def __init__(self, manifold: mm.Manifold, norm: mm.Norm, shape: tuple[int, ...]) -> None:
        super().__init__(
            geometry=mm.Geometry(manifold, norm),
            shape=shape,
            source=mm.Space(1, "l2"),
            target=mm.Space(1, "l2"),
            sensitivity=1.0,
            lipschitz=1.0,
        )

    def describe(self) -> str:
        return "Weight"

    def arguments(self) -> dict[str, object]:
        return {}

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.sum()


def give_gradient(weight: Tensor, generator: torch.Generator) -> None:
    """A random gradient of the weight's dtype, the same on every processor."""
    noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    weight.grad = noise.to(weight.dtype)
