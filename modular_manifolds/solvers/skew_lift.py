"""The steepest turn of a weight as a question about one skew matrix Γ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from modular_manifolds.linalg.fixed_gram import orthonormal_columns
from modular_manifolds.linalg.matrices import MATRIX, inner
from modular_manifolds.linalg.products import (
    combined,
    commuting,
    multiply,
    plus_product,
    product,
    saves_by_symmetry,
)
from modular_manifolds.linalg.rows import ROWS, Rows, SharedRows


class Tangent(NamedTuple):
    """The tangent of a skew Ω, and its descent as two sums that differ by rounding.

    Args:
        direction: `A = −p(Ω) W` with p the cubic, shape (*batch, m, n).
        pair: two stacks whose inner products are `<Γ, p(Ω)>`. That and `<G, A>` add up to zero, but for what was added to Γ:
            None if nothing was.
        inner_product: `<G, A>`, shape (*batch, 1, 1); None if it is best computed from G and A.
    """

    direction: Tensor
    pair: tuple[Tensor, Tensor] | None = None
    inner_product: Tensor | None = None


@dataclass(frozen=True)
class Lift(ABC):
    """`Γ = ½(G Wᵀ − W Gᵀ)` in an orthonormal basis, and the tangent A of a skew Ω given in that basis.

    Args:
        w: the point, tall, shape (*batch, m, n).
        g: the gradient, same shape.
        gamma: 2Γ, shape (*batch, k, k).
    """

    w: Tensor
    g: Tensor
    gamma: Tensor

    @abstractmethod
    def direction(self, omega: Tensor) -> Tangent:
        """`A = −p(Ω) W` with p the cubic, and its descent."""

    def outcome(self) -> Tensor | None:
        """How a factorisation ended, shape (*batch): not zero if there is no Γ in that basis. None if that cannot happen."""
        return None


@dataclass(frozen=True)
class FullLift(Lift):
    """Γ itself, m×m."""

    @classmethod
    def of(cls, w: Tensor, g: Tensor) -> FullLift:
        gamma = multiply(g, w.mT)
        return cls(w, g, gamma - gamma.mT)

    def direction(self, omega: Tensor) -> Tangent:
        return Tangent(_cubic(omega, multiply(omega, self.w), sign=-1))


@dataclass(frozen=True)
class ReducedLift(Lift):
    """Γ in the columns of `[W, G⊥R⁻¹]`, 2n×2n, with `C = WᵀG`, `G⊥ = G − WC` and `RᵀR = G⊥ᵀG⊥ + δI`.

    Nothing of shape (m, n) is needed but for two products over its rows, which may be shared among processes.

    Args:
        off_w: G⊥, shape (*batch, m, n).
        stacked: C above R, or above zero if G⊥ is rounding, shape (*batch, 2n, n); `2Γ = [C; R | 0] − [C; R | 0]ᵀ`.
        factor: R, shape (*batch, n, n), also in float64.
        info: how the factorisation ended, shape (*batch); zero if R exists.
        square: `G⊥ᵀG⊥` if rows are shared, so that `<G, A>` follows without another sum; None otherwise.
    """

    off_w: Tensor
    stacked: Tensor
    info: Tensor
    factor: Tensor
    square: Tensor | None = None

    @classmethod
    def of(cls, w: Tensor, g: Tensor, *, reproject: bool, double_gram: bool) -> ReducedLift:
        """Write Γ down; project G⊥ once more if `reproject`, and factor its Gram matrix in float64 if `double_gram`."""
        c = multiply(w.mT, g)
        off_w = plus_product(g, w, c, factor=-1.0)
        if reproject:
            off_w = plus_product(off_w, w, multiply(w.mT, off_w), factor=-1.0)
        return cls.from_parts(w, g, c, off_w, ROWS, double_gram=double_gram)

    @classmethod
    def from_parts(
        cls, w: Tensor, g: Tensor, c: Tensor, off_w: Tensor, rows: Rows, *, double_gram: bool
    ) -> ReducedLift:
        """The same from C and G⊥.

        A gradient of low rank leaves directions in G⊥ that are rounding. In float32 they would come out as long as the root of
        its eps, and the gap would count what they might be worth.
        """
        columns, eps = w.shape[-1], torch.finfo(w.dtype).eps
        e = rows.gram(off_w.double() if double_gram else off_w)
        square = e.clone() if isinstance(rows, SharedRows) else None
        trace = e.diagonal(dim1=-2, dim2=-1).sum(dim=-1, keepdim=True).unsqueeze(-1)
        size = torch.linalg.vector_norm(e, dim=MATRIX, keepdim=True)
        # Sums of products are off by about eps ‖E‖_F in the spectral norm, and if W spans the gradient, all that is left
        # of it is rounding of C, which is no longer than the gradient.
        share, rounding = SHIFT * torch.finfo(e.dtype).eps, (SPAN_ROUNDING * eps) ** 2 * columns
        shift = size.clamp_min_(rounding / share)
        e.diagonal(dim1=-2, dim2=-1).add_(shift.squeeze(-1), alpha=share)
        factor, info = torch.linalg.cholesky_ex(e, upper=True)
        # The addition to E must not pass for a direction: scaled to unit length, it would be a full step in a random one.
        below = factor.masked_fill(trace <= 2 * rounding, 0.0)
        stacked = torch.cat((c, below.to(c.dtype)), dim=-2)
        gamma = torch.nn.functional.pad(stacked, (0, columns))
        return cls(w, g, gamma - gamma.mT, off_w, stacked, info, factor, square)

    def direction(self, omega: Tensor) -> Tangent:
        n = self.w.shape[-1]
        column = _first_columns(omega, n)
        top, bottom = column.split(n, dim=-2)
        bottom = bottom.to(self.factor.dtype)
        bottom = torch.linalg.solve_triangular(self.factor, bottom, upper=True).to(top.dtype)
        a = product(self.off_w, bottom)
        top = top - top.mT
        a = combined(a, self.w, top, beta=-1.0, alpha=-0.5, over=True)
        along = None
        if self.square is not None:
            # A is a sum of products with W and with G⊥, and so is `<G, A>`.
            c = self.stacked.narrow(-2, 0, n)
            along = inner(c, top) * -0.5 - inner(self.square, bottom).to(c.dtype)
        return Tangent(a, (self.stacked, column), along)

    def outcome(self) -> Tensor | None:
        return self.info


@dataclass(frozen=True)
class TurnedLift(Lift):
    """The `ReducedLift` of Q and `G Bᵀ`, for a W = QB whose columns are not orthonormal.

    Args:
        orthonormal: the lift.
        factor: B, shape (*batch, n, n).
    """

    orthonormal: ReducedLift
    factor: Tensor

    @classmethod
    def of(cls, w: Tensor, g: Tensor, *, reproject: bool, double_gram: bool) -> TurnedLift:
        """Write Γ down, with the arguments of `ReducedLift.of`."""
        q, b = orthonormal_columns(w)
        g_of_q = product(g, b.mT)
        lift = ReducedLift.of(q, g_of_q, reproject=reproject, double_gram=double_gram)
        return cls(w, g, lift.gamma, lift, b)

    def direction(self, omega: Tensor) -> Tangent:
        found = self.orthonormal.direction(omega)
        return Tangent(product(found.direction, self.factor), found.pair)

    def outcome(self) -> Tensor | None:
        return self.orthonormal.outcome()


SHIFT = 4.0
"""How many times eps ‖E‖_F is added to E, so that the factor exists whatever rounding took from it."""
SPAN_ROUNDING = 16.0
"""How many times eps √n the rounding of G⊥ may be long, of a gradient of unit length."""


def _cubic(omega: Tensor, once: Tensor, *, sign: int = 1) -> Tensor:
    """`(3/2) Ω B + ½ Ω³ B` of `once = Ω B`: a contraction for `‖Ω‖₂ ≤ √3`, for Ω² is negative."""
    return combined(once, omega, multiply(omega, once), beta=1.5 * sign, alpha=0.5 * sign)


def _first_columns(omega: Tensor, n: int) -> Tensor:
    """The first n columns of `Ω (3/2 I + ½ Ω²)`; of a large Ω, blocks that symmetry gives are left out."""
    left = omega.narrow(-1, 0, n)
    if omega.dim() > 2 or not saves_by_symmetry(left):
        return _cubic(omega, left)
    above, below = omega.split(n)
    even = torch.cat((commuting(above, left), multiply(below, left))).mul_(0.5)
    even.diagonal().add_(1.5)
    return torch.cat((commuting(above, even, sign=-1), multiply(below, even)))
