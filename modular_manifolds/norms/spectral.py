"""The spectral norm: its steepest descent is Muon."""

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import divide_safely, largest_entry
from modular_manifolds.linalg.msign import msign
from modular_manifolds.norms.base import Norm


@dataclass(frozen=True)
class Spectral(Norm):
    """`‖X‖₂ = σ_max(X)`, the operator norm from l2 to l2; dual `Σ σ_i`; steepest direction `−msign(G)`.

    The steepest direction is `msign` at its default accuracy: singular values of at least a thousandth
    of the largest become 1 to within 1e-3, smaller ones lie between 0 and 1.
    """

    source = "l2"
    target = "l2"

    def _value(self, x: Tensor) -> Tensor:
        return singular_values(x)[..., :1].unsqueeze(-1)

    def _dual(self, x: Tensor) -> Tensor:
        return singular_values(x).sum(dim=-1, keepdim=True).unsqueeze(-1)

    def _steepest(self, g: Tensor) -> Tensor:
        return -msign(g)


def singular_values(x: Tensor) -> Tensor:
    """Singular values, largest first, shape (*batch, min(m, n)); safe for entries of any finite size."""
    scale = largest_entry(x)
    return torch.linalg.svdvals(divide_safely(x, scale)) * scale[..., 0]
