"""Matrices that are only turned: steps keep the Gram matrix, and so every singular value."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from modular_manifolds.linalg.fixed_gram import (
    nearest_with_gram_of,
    over_root,
    tangent_part,
    tangent_part_by_products,
    times_root,
    turned,
    turned_within,
)
from modular_manifolds.linalg.matrices import MATRIX, readable
from modular_manifolds.linalg.products import gram_product
from modular_manifolds.linalg.spectrum import decompose, recompose, singular_values
from modular_manifolds.linalg.symmetric import gram
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.spectral_ball import SpectralBall


@dataclass(frozen=True)
class FixedGram(Manifold):
    """`‖W‖₂ ≤ radius`, and every step is a turn: `{R W : R orthogonal}` for tall or square W, `{W R}` for wide W.

    A turn keeps `WᵀW` (`W Wᵀ` for wide W), so every singular value and the singular vectors of the shorter side. These
    sets, one for each Gram matrix, are the leaves of the ball. A point stays on its leaf: the Gram matrix is that of the
    point, and nothing is stored. `leaf(point)` is the manifold of one of them.

    Tangent at W (tall): `A = ΩW` with Ω skew, which is `WᵀA + AᵀW = 0` if W has full rank. Projection `A − WΛ` with Λ
    symmetric, `CΛ + ΛC = WᵀA + AᵀW` for `C = WᵀW`. With `W = QB`, Q orthonormal, a step has the coordinates
    `radius · A B⁻¹`, in which norms measure it: a tangent of the Stiefel manifold at Q. The spectral norm of the coordinates is
    `radius · min {‖Ω‖₂ : ΩW = A}`, which is at least `‖A‖₂`. Retraction: `P B`, P the polar factor of `Q + A B⁻¹`; it
    equals `(I + Ω)(I − Ω²)^{-1/2} W` for a steepest direction. Projection: singular values above the radius are capped.
    Residual: `max(0, ‖W‖₂/radius − 1)`; that of a leaf is `max |XᵀX − C|/radius²`. Random points are scaled Gaussian
    matrices.

    On an accelerator tangents and retractions are matrix products and triangular solves, without waiting.
    Source: the Stiefel manifold as an orbit, P.-A. Absil, R. Mahony, R. Sepulchre (2008), section 3.4; the norm of a turn by
    S. Parrott (1978).
    """

    radius: float = 1.0

    transposes = True
    decides_on_host = True

    def _from_noise(self, noise: Tensor) -> Tensor:
        u, sigma, vh, _ = decompose(noise)
        # A projection would cap nearly all singular values at the radius, so the matrix is scaled instead.
        return recompose(u, sigma / sigma[..., :1], vh, self.radius, noise)

    def _project(self, x: Tensor) -> Tensor:
        return SpectralBall(self.radius).project(x)

    def _tangent(self, point: Tensor, vector: Tensor) -> Tensor:
        part = tangent_part if readable(point) else tangent_part_by_products
        return _oriented(part(*_tall(point, vector)), point).to(vector.dtype)

    def _retract(self, point: Tensor, step: Tensor) -> Tensor:
        return self._retract_within(point, step, math.inf)

    def _retract_within(self, point: Tensor, step: Tensor, length: float) -> Tensor:
        w, a = _tall(point, step)
        if not readable(point):
            return _oriented(turned_within(w, a, length / self.radius), point)
        # The host reads the step, which tells more than a bound on its length.
        c = gram_product(w.double())
        if self._is_outside(w, c, self.radius):
            w, _ = _tall(self._project(point), step)
            c = gram_product(w.double())
        return _oriented(turned(w, a, c), point)

    def _residual(self, point: Tensor) -> Tensor:
        return (singular_values(point)[..., 0] / self.radius - 1).clamp_min(0)

    def _largest_singular_value(self, shape: tuple[int, int]) -> float:
        del shape
        return self.radius

    def _coordinates(self, point: Tensor, step: Tensor) -> Tensor:
        w, a = _tall(point, step)
        return _oriented(over_root(a, w), point) * self.radius

    def _gradient_coordinates(self, point: Tensor, gradient: Tensor) -> Tensor:
        w, g = _tall(point, gradient)
        return _oriented(times_root(g, w), point) / self.radius

    def leaf(self, point: Tensor) -> Manifold:
        return GramLeaf(self.radius, origin=point.detach().clone())

    def tall(self, point: Tensor) -> tuple[Tensor, bool]:
        """The point in units of the radius, transposed if it is wide, and whether it is wide."""
        w, wide = (point.mT, True) if _is_wide(point) else (point, False)
        return (w if self.radius == 1.0 else w / self.radius), wide

    def unit_tall(self, point: Tensor) -> tuple[Tensor, bool]:
        """`tall` of the nearest point of the ball, if the point lies in the host's memory: see `Stiefel.unit_tall`."""
        w, wide = self.tall(point)
        if readable(point) and self._is_outside(w, gram_product(w), 1.0):
            return self.tall(self._project(point))
        return w, wide

    def _is_outside(self, w: Tensor, c: Tensor, radius: float) -> bool:
        """Whether W with `C = WᵀW` lies outside the ball: then `radius² I − C` has no Cholesky factor.

        Rounding of W does not count.
        """
        limit = radius * (1 + 16 * torch.finfo(w.dtype).eps * (w.shape[-2] + w.shape[-1]) ** 0.5)
        # An entry is at most as large as the spectral norm, and a Gram matrix of such entries does not overflow.
        if not bool((w.abs() <= limit).all()):
            return True
        rest = c.neg()
        rest.diagonal(dim1=-2, dim2=-1).add_(limit**2)
        return bool(torch.linalg.cholesky_ex(rest).info.any())


@dataclass(frozen=True, eq=False)
class GramLeaf(FixedGram):
    """`{R W : R orthogonal}` for one tall W, `{W R}` for a wide one: all matrices with its Gram matrix.

    Projection: the nearest such matrix (orthogonal Procrustes). It measures how far a weight has drifted, and takes it back.

    Args:
        origin: W, shape (*batch, m, n) or (n,).
    """

    origin: Tensor = field(kw_only=True)

    def _from_noise(self, noise: Tensor) -> Tensor:
        return self._project(noise)

    def _project(self, x: Tensor) -> Tensor:
        return _oriented(nearest_with_gram_of(*_tall(self._origin(x), x)), x)

    def _is_outside(self, w: Tensor, c: Tensor, radius: float) -> bool:
        # Every point of the leaf has the norm of the origin.
        del w, c, radius
        return False

    def _residual(self, point: Tensor) -> Tensor:
        w, x = (each.double() / self.radius for each in _tall(self._origin(point), point))
        return (gram(x) - gram(w)).abs().amax(dim=MATRIX).to(point.dtype)

    def _scaled(self, factor: float) -> Manifold:
        return GramLeaf(self.radius * factor, origin=self.origin * factor)

    def _origin(self, like: Tensor) -> Tensor:
        origin = self.origin.unsqueeze(-1) if self.origin.dim() == 1 else self.origin
        return origin.to(like.dtype)


def _is_wide(x: Tensor) -> bool:
    return x.shape[-2] < x.shape[-1]


def _tall(point: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    return (point.mT, vector.mT) if _is_wide(point) else (point, vector)


def _oriented(tall: Tensor, like: Tensor) -> Tensor:
    return tall.mT if _is_wide(like) else tall
