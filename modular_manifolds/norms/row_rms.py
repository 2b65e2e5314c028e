"""The largest RMS over rows: the norm of an embedding table."""

import math
from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.linalg.matrices import length, normalise
from modular_manifolds.norms.base import Norm


@dataclass(frozen=True)
class RowRMS(Norm):
    """`max_i ‖x_i‖₂/√d` over rows x_i of length d; dual `√d Σ ‖x_i‖₂`; steepest `−√d g_i/‖g_i‖₂` a row.

    As a linear map x to Wx: `|<w_i, x>| ≤ ‖w_i‖₂ ‖x‖₂`, so from l2 to linf the constant is `√d`.
    Source: Large et al., "Scalable optimization in the modular norm" (2024), Embedding.
    """

    coupled_dims = (-1,)
    source = "l2"
    target = "linf"

    def norm_constant(self, shape: tuple[int, int]) -> float:
        return math.sqrt(shape[1])

    def spectral_unit(self, shape: tuple[int, ...]) -> float:
        return math.sqrt(shape[-2] * shape[-1])  # ‖X‖₂ ≤ ‖X‖_F ≤ √m max_i ‖x_i‖₂

    def _value(self, x: Tensor) -> Tensor:
        return length(x, dim=-1).amax(dim=-2, keepdim=True) / math.sqrt(x.shape[-1])

    def _dual(self, x: Tensor) -> Tensor:
        return length(x, dim=-1).sum(dim=-2, keepdim=True) * math.sqrt(x.shape[-1])

    def _steepest(self, g: Tensor) -> Tensor:
        return -math.sqrt(g.shape[-1]) * normalise(g, dim=-1)
