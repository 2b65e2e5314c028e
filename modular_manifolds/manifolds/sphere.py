"""Matrices of a fixed Frobenius norm; with the Frobenius norm: hyperspherical descent."""

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.gram_spectrum import SQUARES_RANGE
from modular_manifolds.linalg.matrices import (
    MATRIX,
    inner,
    length,
    moved_direction,
    normalise,
    readable,
)
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.directions import onto_sphere


@dataclass(frozen=True)
class Sphere(Manifold):
    """`‖W‖_F = radius`: the whole matrix (or vector) is one point of a sphere.

    Tangent at W: `<W, A> = 0`. Retraction: `W + A` divided by its norm, which is `√(1 + η²)` for a tangent step of
    Frobenius norm η at radius 1. Residual: `|‖W‖_F/radius − 1|`. Zero is projected to the first basis
    vector. Source: Bernstein, "Modular Manifolds" (2025).
    """

    radius: float = 1.0

    transposes = True

    def _project(self, x: Tensor) -> Tensor:
        flat = x.flatten(-2)
        return (self.radius * onto_sphere(flat)).reshape(x.shape)

    def _tangent(self, point: Tensor, vector: Tensor) -> Tensor:
        normal = normalise(point, dim=MATRIX)
        return vector - normal * inner(normal, vector)

    def _unit_normal(self, point: Tensor, *, by_products: bool) -> Tensor:
        if not by_products and readable(point) and point.dtype is torch.float64:
            size = torch.linalg.vector_norm(point, dim=MATRIX, keepdim=True)
            low, high = SQUARES_RANGE
            if bool(((size > low) & (size < high)).all()):
                return point / size
        return normalise(point, dim=MATRIX)

    def _retract(self, point: Tensor, step: Tensor) -> Tensor:
        return self._project(moved_direction(point, step))

    def _residual(self, point: Tensor) -> Tensor:
        return (length(point, dim=MATRIX).squeeze(-1).squeeze(-1) / self.radius - 1).abs()

    def _largest_singular_value(self, shape: tuple[int, int]) -> float:
        del shape
        return self.radius
