"""Matrices whose rows have zero mean and one length: weight standardisation as a manifold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.errors import ShapeError
from modular_manifolds.linalg.matrices import divide_safely, length, moved_direction, normalise
from modular_manifolds.manifolds.base import Manifold


@dataclass(frozen=True)
class BalancedRows(Manifold):
    """`‖w_i‖₂ = radius` and `Σ_j w_ij = 0` for every row w_i, of at least two entries.

    Tangent at W: `<w_i, a_i> = 0` and `Σ_j a_ij = 0` for every row. Residual: the largest over rows of
    `|‖w_i‖₂/radius − 1|` and of `|Σ_j w_ij|/(radius √n)`. A constant row is projected to
    `radius (1, −1, 0, …)/√2`. With `RowRMS` this is the weight standardisation of BiT (Kolesnikov et al., 2020)
    and the constraint of Nero (Liu et al., 2021).
    """

    radius: float = 1.0

    coupled_dims = (-1,)

    def check_shape(self, shape: Sequence[int], *, argument: str = "shape") -> None:
        super().check_shape(shape, argument=argument)
        if len(shape) == 1 or shape[-1] < 2:
            raise ShapeError(
                argument,
                f"must be (*batch, m, n) with rows of at least two entries for {self}",
                tuple(shape),
                "A single entry of zero mean is zero; use Oblique or Euclidean instead.",
            )

    def _project(self, x: Tensor) -> Tensor:
        centred, has_centred_part = _centred_part(x)
        fallback = torch.zeros_like(x)
        fallback.select(-1, 0).fill_(math.sqrt(0.5))
        fallback.select(-1, 1).fill_(-math.sqrt(0.5))
        # Centred twice: the division magnified the rounding of the first mean.
        unit = normalise(_centred(normalise(centred, dim=-1)), dim=-1)
        return self.radius * torch.where(has_centred_part, unit, fallback)

    def _tangent(self, point: Tensor, vector: Tensor) -> Tensor:
        centred_vector = _centred(vector)
        # If the point is off the manifold, only its part of zero mean counts: otherwise the projection would not be
        # orthogonal.
        centred, has_centred_part = _centred_part(point)
        normal = torch.where(has_centred_part, normalise(centred, dim=-1), 0.0)
        return centred_vector - normal * (normal * centred_vector).sum(dim=-1, keepdim=True)

    def _retract(self, point: Tensor, step: Tensor) -> Tensor:
        return self._project(moved_direction(point, step))

    def _residual(self, point: Tensor) -> Tensor:
        deviation = (length(point, dim=-1).squeeze(-1) / self.radius - 1).abs()
        # Divided first, so that a sum of large entries does not overflow to infinities of both signs.
        largest = point.abs().amax(dim=-1, keepdim=True)
        mean = divide_safely(point, largest).sum(dim=-1).abs() * largest.squeeze(-1)
        mean = mean / (self.radius * math.sqrt(point.shape[-1]))
        return torch.maximum(deviation, mean).amax(dim=-1)

    def _largest_singular_value(self, shape: tuple[int, int]) -> float:
        # ‖W‖₂ ≤ ‖W‖_F = radius · √rows
        return self.radius * math.sqrt(shape[0])

    def _largest_row_norm(self, shape: tuple[int, int]) -> float:
        del shape
        return self.radius


def _centred_part(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each row, normalised and then centred; and whether the result is more than rounding error."""
    # Divided first, so that the mean of entries of 1e+30 does not overflow.
    centred = _centred(normalise(x, dim=-1))
    # Only rounding error is left of a constant row.
    rounding = 4 * torch.finfo(x.dtype).eps
    return centred, torch.logical_not(length(centred, dim=-1) <= rounding)


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(dim=-1, keepdim=True)
