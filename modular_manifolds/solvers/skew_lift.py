"""The steepest tangent direction of a Stiefel manifold as a question about one skew matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modular_manifolds.linalg.host import Numbers, on_host, spread
from modular_manifolds.linalg.matrices import MATRIX, inner, projection_rounding
from modular_manifolds.linalg.products import (
    combined,
    gram_product,
    multiply,
    plus_product,
    product,
)


@dataclass(frozen=True)
class Lift(ABC):
    """`Γ = ½(G Wᵀ − W Gᵀ)` in some orthonormal basis and some unit, and what a skew Ω there is for W.

    Args:
        w: the point, tall.
        gamma: Γ; zero where a gradient has no tangent part, only rounding.
        there: where it has one.
        rank: of Γ, at most.
    """

    w: Tensor  # (*batch, m, n)
    gamma: Tensor  # (*batch, k, k)
    there: NDArray[np.bool_]  # one a matrix
    rank: int

    @abstractmethod
    def direction(self, omega: Tensor) -> tuple[Tensor, Numbers, Numbers]:
        """`A = −pΩW` with p the cubic, tall; `−<G, A>` and `<Γ, p(Ω)>` in the units of Γ, one a matrix.

        These two are the same, but for what was added to Γ.
        """


def lift(w: Tensor, g: Tensor) -> Lift:
    """Γ as it is where m ≤ 2n or small, else in the columns of W and G."""
    rows, columns = w.shape[-2:]
    few = w.dim() == 2 and rows <= FEW_ROWS
    return _Whole.of(w, g) if rows <= 2 * columns or few else _Reduced.of(w, g)


FEW_ROWS = 96
"""Up to here the products of one m×m matrix cost less than the calls that would make it smaller."""


@dataclass(frozen=True)
class _Whole(Lift):
    """Γ itself, m×m, divided by its length."""

    g: Tensor  # (*batch, m, n)
    unit: Numbers  # what twice a product with G is to be multiplied by

    @classmethod
    def of(cls, w: Tensor, g: Tensor) -> _Whole:
        rows, columns = w.shape[-2:]
        gamma = multiply(g, w.mT)
        gamma = gamma - gamma.mT
        size, whole = on_host(*(torch.linalg.vector_norm(x, dim=MATRIX) for x in (gamma, g)))
        there = ~(size <= projection_rounding(w) * whole)
        unit = there / np.where(there, size, 1.0)
        return cls(w, gamma.mul_(spread(unit, w)), there, min(rows, 2 * columns), g, 2 * unit)

    def direction(self, omega: Tensor) -> tuple[Tensor, Numbers, Numbers]:
        a = _cubic(omega, multiply(omega, self.w), sign=-1)
        (along,) = on_host(inner(self.g, a))
        descent = -self.unit * along
        return a, descent, descent


@dataclass(frozen=True)
class _Reduced(Lift):
    """Γ in the columns of `[W, G⊥R⁻¹]`, 2n×2n."""

    across: Tensor  # G⊥, (*batch, m, n)
    unit: Tensor | float  # what G⊥ is to be multiplied by
    target: Tensor  # K above R, (*batch, 2n, n)
    added: Numbers  # to RᵀR

    @classmethod
    def of(cls, w: Tensor, g: Tensor) -> _Reduced:
        c = multiply(w.mT, g)
        across = plus_product(g, w, c, factor=-1.0)
        k = c - c.mT
        along, within, part = on_host(
            *(torch.linalg.vector_norm(x, dim=MATRIX) for x in (c, k, across))
        )
        if bool((OBLIQUE * part < along).any()):
            # Of a gradient that is nearly normal little is left, with rounding of the whole in it.
            across = plus_product(across, w, multiply(w.mT, across), factor=-1.0)
            (part,) = on_host(torch.linalg.vector_norm(across, dim=MATRIX))
        within, least = within / 2, projection_rounding(w) * np.hypot(along, part)
        tangent = np.hypot(within, part)
        there = ~(tangent <= least)
        scale = there / np.where(there, tangent, 1.0)
        # G⊥ alone may be no more than rounding.
        scale_across = np.where(part <= least, 0.0, scale)
        unit = spread(scale_across, w)
        factor, added = _factor(gram_product(across).mul_(spread(scale_across**2, w)))
        k.mul_(spread(scale / 2, w))
        half = factor * 0.5
        corner = torch.zeros_like(half)
        left = torch.cat((k, half), dim=-2)
        gamma = torch.cat((left, torch.cat((half.mT.neg(), corner), dim=-2)), dim=-1)
        target = torch.cat((k, factor), dim=-2)
        return cls(w, gamma, there, gamma.shape[-1], across, unit, target, added)

    def direction(self, omega: Tensor) -> tuple[Tensor, Numbers, Numbers]:
        n = self.w.shape[-1]
        column = _cubic(omega, omega[..., :n])
        t, factor = column[..., :n, :], self.target[..., n:, :]
        fill = torch.linalg.solve_triangular(factor, column[..., n:, :], upper=True)
        # −<G, A> = <K, T> + tr(F E) with F = R⁻¹ Y and E = RᵀR − δI
        trace = fill.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
        most, trace = on_host(inner(self.target, column), trace)
        a = plus_product(
            product(self.w, (t.mT - t).mul_(0.5)), self.across, fill.mul_(self.unit), factor=-1.0
        )
        return a, most - self.added * trace, most


OBLIQUE = 8.0
"""Where the part of a gradient across W is not longer than this part of the rest, it is taken again."""


def _cubic(omega: Tensor, once: Tensor, *, sign: int = 1) -> Tensor:
    """`(3/2) Ω B + ½ Ω³ B` of `once = Ω B`: a contraction for `‖Ω‖₂ ≤ √3`, for Ω² is negative."""
    return combined(once, omega, multiply(omega, once), beta=1.5 * sign, alpha=0.5 * sign)


def _factor(e: Tensor) -> tuple[Tensor, Numbers]:
    """The upper triangular R with `RᵀR = E + δI`, and δ: what rounding may have taken from E, or took; writes to E.

    Products that are added up lose about `ε ‖E‖_F` in the spectral norm.
    """
    eps = torch.finfo(e.dtype).eps
    (size,) = on_host(torch.linalg.vector_norm(e, dim=MATRIX))
    added, more = np.zeros_like(size), 1.5 * eps * size + eps**2
    for _ in range(4):
        step = spread(more, e)
        e.diagonal(dim1=-2, dim2=-1).add_(step[..., 0] if isinstance(step, Tensor) else step)
        added = added + more
        factor, info = torch.linalg.cholesky_ex(e, upper=True)
        (failed,) = on_host(info)
        if not failed.any():
            return factor, added
        more = np.where(failed > 0, 8 * added, 0.0)
    # Only NaN has no factor then, and NaN must be seen.
    return torch.full_like(e, torch.nan), added
