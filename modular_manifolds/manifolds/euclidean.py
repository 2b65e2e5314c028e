"""No constraint: every matrix is a point, every vector is tangent."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.manifolds.base import Manifold


@dataclass(frozen=True)
class Euclidean(Manifold):
    """All matrices of the shape. The space is unbounded, so it bounds no singular value. Random points have
    independent standard normal entries."""

    coupled_dims = ()
    compact = False
    fixed_size = False
    transposes = True

    def _project(self, x: Tensor) -> Tensor:
        return x.clone()

    def _tangent(self, point: Tensor, vector: Tensor) -> Tensor:
        del point
        return vector.clone()

    def _retract(self, point: Tensor, step: Tensor) -> Tensor:
        return point + step

    def _residual(self, point: Tensor) -> Tensor:
        return torch.zeros(point.shape[:-2], dtype=point.dtype, device=point.device)

    def _largest_singular_value(self, shape: tuple[int, int]) -> float:
        del shape
        return math.inf

    def _scaled(self, factor: float) -> Manifold:
        del factor
        return self
