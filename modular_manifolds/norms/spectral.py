"""The spectral norm: its steepest descent is Muon."""

from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.linalg.msign import msign
from modular_manifolds.linalg.spectrum import singular_values
from modular_manifolds.norms.base import Norm

MSIGN_ACCURACY = 0.1
"""What five steps reach, in bfloat16 too; five of Muon's usual ones reach 0.3."""
MSIGN_FLOOR = 0.01
"""Of the largest singular value: what is below counts little in the descent."""


@dataclass(frozen=True)
class Spectral(Norm):
    """`‖X‖₂ = σ_max(X)`, the operator norm from l2 to l2; dual `Σ σ_i`; steepest direction `−msign(G)`.

    The steepest direction is `msign` with an accuracy of 0.1: singular values of at least a hundredth of
    the largest become 1 to within that, smaller ones lie between 0 and 1.1. Where many
    of those carry much of the dual, the descent falls short of it by more than 0.1.
    """

    source = "l2"
    target = "l2"
    accuracy = MSIGN_ACCURACY

    def _value(self, x: Tensor) -> Tensor:
        return singular_values(x)[..., :1].unsqueeze(-1)

    def _dual(self, x: Tensor) -> Tensor:
        return singular_values(x).sum(dim=-1, keepdim=True).unsqueeze(-1)

    def _steepest(self, g: Tensor) -> Tensor:
        return msign(g, accuracy=MSIGN_ACCURACY, floor=MSIGN_FLOOR).neg_()
