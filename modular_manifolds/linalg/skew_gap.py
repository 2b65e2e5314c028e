"""A bound on what odd polynomials on a skew matrix leave of its nuclear norm."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from modular_manifolds.linalg.backend import Bound
from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.polar_express import mapped


@dataclass(frozen=True)
class SkewGap:
    """A bound on `‖Γ‖_nuc` if polynomials p and a cubic step were applied to Γ/s, made for singular values from f on.

    The cubic step leaves `σ (1 − p)² (1 + p/2)` of each singular value. Every `σ ≥ f s` comes within δ of 1, and within
    `ε = δ² (3 + δ)/2` after that step. The smaller ones lose at most `c s` each, c the most that one below f loses; and at
    most `μ s Σ ((1 + δ)² − p²)` together, μ the largest loss of one over its term, with
    `Σ ((1 + δ)² − p²) ≤ k (1 + δ)² − ‖Ω‖_F²` for Γ of rank k. So `‖Γ‖_nuc ≤ (<Γ, Ω> + lost)/(1 − ε)`.

    Args:
        loss_rate: μ.
        max_loss: c.
        deviation: δ.
        rotation_loss: the part of the descent that rounding may cost by turning singular vectors.
        max_squares: the largest `‖Ω‖_F²`, of singular values that all came to 1.
        rank: k.
    """

    loss_rate: float
    max_loss: float
    deviation: float
    rotation_loss: float
    max_squares: float
    rank: int

    @classmethod
    @functools.cache
    def of(
        cls,
        polynomials: tuple[Polynomial, ...],
        floor: float,
        *,
        rank: int,
        columns: int,
        dtype: torch.dtype,
        half: bool,
    ) -> SkewGap:
        """For polynomials made for singular values from `floor` on, applied to Γ of shape (columns, columns) in `dtype`."""
        below, above = np.linspace(0.0, floor, 2001), np.geomspace(floor, 1.0, 4001)
        rounding = HALF_DEVIATION if half else 0.0
        deviation = float(np.abs(1.0 - mapped(polynomials, above)).max()) + rounding
        # What Γ does not have is rounding, and p has magnified it.
        noise = 16.0 * torch.finfo(dtype).eps / floor
        # Rounding may leave a singular value below what p makes of it, and then it loses more.
        attained = np.minimum(mapped(polynomials, below), 1.0 + deviation) - (rounding + noise)
        lost = below * (1.0 - attained) ** 2 * (1.0 + attained / 2)
        return cls(
            loss_rate=float((lost / ((1 + deviation) ** 2 - attained**2)).max()),
            max_loss=float(lost.max()),
            deviation=deviation,
            rotation_loss=HALF_ROTATION_LOSS if half else 0.0,
            max_squares=rank * (1 + deviation) ** 2 + (columns - rank) * noise**2,
            rank=rank,
        )

    def of_direction(
        self, omega_norm: Number, size: Number, inner_product: Number, attained: Number | None
    ) -> Number:
        """The relative gap, for plain numbers or for tensors of one number a matrix; of a zero Γ it means nothing.

        Args:
            omega_norm: `‖Ω‖_F` before the cubic step.
            size: s of 2Γ.
            inner_product: `<G, A>` in units of Γ.
            attained: `<Γ, Ω>` after the cubic step; `−<G, A>` if None.
        """
        loss_rate, max_loss = self.loss_rate / 2, self.rank * self.max_loss / 2
        missing = _subtract(loss_rate * self.max_squares, omega_norm * omega_norm, loss_rate)
        lost = _clip(missing, 0.0, max_loss) * size
        nuclear = lost - inner_product if attained is None else lost + attained
        return inner_product * self._min_mapped_value / nuclear + (1 + self.rotation_loss)

    @property
    def _min_mapped_value(self) -> float:
        """`1 − ε`, a lower bound on the singular values of Ω above the floor, after the cubic step."""
        return 1 - self.deviation**2 * (3 + self.deviation) / 2

    def constants(self, rounding: float, min_scale: float) -> Bound:
        """The constants of `of_direction` for the kernels.

        Args:
            rounding: `rounding/s` is added to the gap.
            min_scale: up to this s there is no direction.
        """
        loss_rate, max_loss = self.loss_rate / 2, self.rank * self.max_loss / 2
        return Bound(
            loss_rate,
            self.max_squares,
            max_loss,
            self._min_mapped_value,
            1 + self.rotation_loss,
            rounding,
            min_scale,
        )

    def expected_gap(self, descent: Tensor, missing: Tensor) -> Tensor:
        """The relative gap that one more polynomial will leave, told from X that it will be applied to.

        The singular values that will come to 1 are near 1 already, so `‖I − XXᵀ‖_F²` counts the others, and a little more.

        Args:
            descent: `<Γ/s, X>`.
            missing: `‖I − XXᵀ‖_F²`, of the rank of Γ.
        """
        lost = self.loss_rate * missing
        return lost / (descent + lost)


Number = TypeVar("Number", float, Tensor)


def _subtract(x: float, y: Number, factor: float) -> Number:
    """`x − factor · y`."""
    return torch.rsub(y, x, alpha=factor) if isinstance(y, Tensor) else x - factor * y


def _clip(x: Number, low: float, high: float) -> Number:
    return x.clamp(low, high) if isinstance(x, Tensor) else min(max(x, low), high)


HALF_DEVIATION = 0.02
"""The most that rounding in bfloat16 may add to the distance of a singular value from 1; the cubic step squares that."""
HALF_ROTATION_LOSS = 2e-3
"""The part of the descent that it may cost. Seen on matrices of low rank, of singular values that fall evenly or by a
power, and Gaussian ones: at most 1e-3."""
