"""Modules without weights, each with a Lipschitz constant that is proved in the line beside it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from modular_manifolds.nn.module import Bond


class FixedBond(Bond):
    """A bond that takes any space, keeps it, and has sensitivity 1: its class decides, not its caller."""

    def __init__(self) -> None:
        super().__init__()


class Identity(FixedBond):
    """`x`; sensitivity 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class ReLU(FixedBond):
    """`max(x, 0)`; sensitivity 1 in rms, l2, l1 and linf: no entry moves more than its input did."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x)


class Abs(FixedBond):
    """`|x|`; sensitivity 1 in rms, l2, l1 and linf: no entry moves more than its input did."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


class MaxMin(FixedBond):
    """Each pair (x₂ᵢ, x₂ᵢ₊₁) becomes (max, min); an odd last entry stays.

    Sensitivity 1 in rms, l2, l1 and linf: sorting is 1-Lipschitz in every norm that does not depend on
    the order of the entries. Source: Anil, Lucas, Grosse, "Sorting out Lipschitz function
    approximation" (2019).
    """

    def forward(self, x: Tensor) -> Tensor:
        even = x.shape[-1] - x.shape[-1] % 2
        pairs = x[..., :even].unflatten(-1, (-1, 2))
        ordered = torch.stack((pairs.amax(dim=-1), pairs.amin(dim=-1)), dim=-1).flatten(-2)
        return torch.cat((ordered, x[..., even:]), dim=-1)


GELU_SLOPE = 1.1289042
"""Above the largest slope of GELU, 1.128904145…, at x = √2: `Φ(√2) + √2 φ(√2)`."""


class GELU(FixedBond):
    """`gelu(x) / 1.1289042`; sensitivity 1 in rms, l2, l1 and linf.

    The divisor is above the largest slope `Φ(√2) + √2 φ(√2)`, so no entry moves more than its input did.
    """

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(x) / GELU_SLOPE


class Flatten(FixedBond):
    """(batch, …) becomes (batch, size); sensitivity 1: the entries are the same ones."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)
