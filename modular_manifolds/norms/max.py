"""The largest entry: its steepest descent is sign descent."""

import math
from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX, largest_entry
from modular_manifolds.norms.base import Norm


@dataclass(frozen=True)
class Max(Norm):
    """`max |x_ij|`, the operator norm from l1 to linf; dual `Σ |x_ij|`; steepest direction `−sign(G)`."""

    coupled_dims = ()
    transposes = True
    source = "l1"
    target = "linf"

    def spectral_unit(self, shape: tuple[int, ...]) -> float:
        return math.sqrt(shape[-2] * shape[-1])  # ‖X‖₂ ≤ ‖X‖_F ≤ √(mn) max |x_ij|

    def _value(self, x: Tensor) -> Tensor:
        return largest_entry(x)

    def _dual(self, x: Tensor) -> Tensor:
        return x.abs().sum(dim=MATRIX, keepdim=True)

    def _steepest(self, g: Tensor) -> Tensor:
        # sign(NaN) is 0 and sign(inf) is 1, which would look like valid directions; adding 0 · G makes them NaN.
        return g.sign().add_(g * 0).neg_()
