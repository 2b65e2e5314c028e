"""Matrices whose rows have one length: forced weight normalisation as a manifold."""

import math
from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.linalg.matrices import length, moved_direction, normalise
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.directions import onto_sphere


@dataclass(frozen=True)
class Oblique(Manifold):
    """`‖w_i‖₂ = radius` for every row w_i.

    Tangent at W: `<w_i, a_i> = 0` for every row. Residual: the largest `|‖w_i‖₂/radius − 1|`. With `RowRMS`
    this is the forced weight normalisation of Karras et al., "Analyzing and improving the training dynamics
    of diffusion models" (2024).
    """

    radius: float = 1.0

    coupled_dims = (-1,)

    def _project(self, x: Tensor) -> Tensor:
        return self.radius * onto_sphere(x)

    def _tangent(self, point: Tensor, vector: Tensor) -> Tensor:
        normal = normalise(point, dim=-1)
        return vector - normal * (normal * vector).sum(dim=-1, keepdim=True)

    def _retract(self, point: Tensor, step: Tensor) -> Tensor:
        return self._project(moved_direction(point, step))

    def _residual(self, point: Tensor) -> Tensor:
        return (length(point, dim=-1).squeeze(-1) / self.radius - 1).abs().amax(dim=-1)

    def _largest_singular_value(self, shape: tuple[int, int]) -> float:
        # ‖W‖₂ ≤ ‖W‖_F = radius · √rows
        return self.radius * math.sqrt(shape[0])

    def _largest_row_norm(self, shape: tuple[int, int]) -> float:
        del shape
        return self.radius
