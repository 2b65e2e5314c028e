"""Matrices of a fixed spectral norm."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.gram_spectrum import capped_by_gram, top_pair_by_gram
from modular_manifolds.linalg.matrices import inner, readable
from modular_manifolds.linalg.spectral_cap import capped_by_products, largest_in_radii
from modular_manifolds.linalg.spectrum import decompose, recompose, singular_values
from modular_manifolds.linalg.top_pair import top_singular_pair
from modular_manifolds.manifolds.base import Manifold


@dataclass(frozen=True)
class SpectralSphere(Manifold):
    """`‖W‖₂ = radius`: the largest singular value is fixed, the others are at most as large.

    A tangent A at W has `<u vᵀ, A> = 0`, with u and v the top singular pair. If the largest singular value is repeated,
    the set has a corner, and one of its pairs is used. Projection: singular values above the radius are capped, or
    the largest is raised to it; zero becomes the radius times the first basis matrix. Random points are scaled Gaussian
    matrices. Retraction: the projection of `W + A`. Residual: `|‖W‖₂/radius − 1|`.

    These are computed by decompositions in float64, the tangent and the retraction by one of the smaller Gram matrix. On
    an accelerator the tangent and the retraction use matrix products in the dtype of the weight, without waiting; the
    residual is then at most 1e-5 in float32.
    """

    radius: float = 1.0

    fixed_size = False
    transposes = True
    decides_on_host = True

    def _from_noise(self, noise: Tensor) -> Tensor:
        u, sigma, vh, _ = decompose(noise)
        # A projection would cap nearly all singular values at the radius, so the matrix is scaled instead.
        return recompose(u, sigma / sigma[..., :1], vh, self.radius, noise)

    def _project(self, x: Tensor) -> Tensor:
        return _raised_or_capped(x, self.radius)

    def _tangent(self, point: Tensor, vector: Tensor) -> Tensor:
        pair = top_pair(point, by_products=not readable(point)).to(vector.dtype)
        return vector - pair * inner(pair, vector)

    def _unit_normal(self, point: Tensor, *, by_products: bool) -> Tensor:
        return top_pair(point, by_products=by_products)

    def _retract(self, point: Tensor, step: Tensor) -> Tensor:
        return self._retract_within(point, step, math.inf)

    def _retract_within(self, point: Tensor, step: Tensor, length: float) -> Tensor:
        if not readable(point):
            return retract_by_products(point, step, self.radius, length)
        moved = point + step
        capped = capped_by_gram(moved, self.radius, raised=True)
        if capped is not None:
            return capped
        if bool(torch.isfinite(moved).all()):
            return _raised_or_capped(moved, self.radius)
        # The sum of large entries overflows; half of it does not.
        return 2 * _raised_or_capped(point / 2 + step / 2, self.radius / 2)

    def _residual(self, point: Tensor) -> Tensor:
        return (singular_values(point)[..., 0] / self.radius - 1).abs()

    def _largest_singular_value(self, shape: tuple[int, int]) -> float:
        del shape
        return self.radius


def _raised_or_capped(x: Tensor, radius: float) -> Tensor:
    u, sigma, vh, size = decompose(x)
    # Singular values in radii; the cap also holds for values that overflow to infinity.
    radii = (sigma * size[..., 0] / radius).clamp_max(1)
    first = torch.ones_like(radii[..., :1])
    return recompose(u, torch.cat((first, radii[..., 1:]), dim=-1), vh, radius, x)


def retract_by_products(point: Tensor, step: Tensor, radius: float, length: float) -> Tensor:
    """`W + A` with singular values capped at the radius, or the largest raised to it, without a decomposition.

    Args:
        point: W on the sphere, shape (*batch, m, n).
        step: A, same shape.
        length: a bound on `‖A‖₂`; infinite if none is known.
    """
    # The sum of large entries overflows; half of it does not.
    half = torch.add(point * 0.5, step, alpha=0.5)
    capped, above = capped_by_products(half, radius / 2, largest=largest_in_radii(length / radius))
    u, sigma, v = top_singular_pair(half)
    # σ = uᵀXv is exact to second order in the error of u and v, so the raised value is too.
    raised = half + (radius / 2 - sigma) * (u @ v.mT)
    return 2 * torch.where(above, capped, raised)


def top_pair(point: Tensor, *, by_products: bool = False) -> Tensor:
    """`u vᵀ` of the largest singular value, shape (*batch, m, n).

    It is computed in float64 by a decomposition, or in the dtype of the point by matrix products.
    """
    if by_products:
        u, _, v = top_singular_pair(point)
        return u @ v.mT
    pair = top_pair_by_gram(point)
    if pair is not None:
        return pair
    u, _, vh, _ = decompose(point)
    return u[..., :, :1] @ vh[..., :1, :]
