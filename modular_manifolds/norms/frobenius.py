"""The Frobenius norm: its steepest descent is normalised gradient descent."""

from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX, length, normalise
from modular_manifolds.norms.base import Norm


@dataclass(frozen=True)
class Frobenius(Norm):
    """`‖X‖_F = √Σ x_ij²`, its own dual; steepest direction `−G/‖G‖_F`."""

    transposes = True
    source = "l2"
    target = "l2"

    def spectral_unit(self, shape: tuple[int, ...]) -> float:
        del shape
        return 1.0  # ‖X‖₂ ≤ ‖X‖_F

    def _value(self, x: Tensor) -> Tensor:
        return length(x, dim=MATRIX)

    def _dual(self, x: Tensor) -> Tensor:
        return length(x, dim=MATRIX)

    def _steepest(self, g: Tensor) -> Tensor:
        return -normalise(g, dim=MATRIX)
