"""Matrices of bounded spectral norm: spectral normalisation as a constraint."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.gram_spectrum import capped_by_gram
from modular_manifolds.linalg.matrices import readable
from modular_manifolds.linalg.spectral_cap import capped_by_products, largest_in_radii
from modular_manifolds.linalg.spectrum import decompose, recompose, singular_values
from modular_manifolds.manifolds.base import Manifold


@dataclass(frozen=True)
class SpectralBall(Manifold):
    """`‖W‖₂ ≤ radius`: a ball with an interior and a boundary.

    Projection and retraction cap the singular values at the radius, in float64. The retraction decomposes the smaller
    Gram matrix. On an accelerator it caps them by matrix products in the dtype of the weight, without waiting; the
    residual is then at most 1e-5 in float32.
    Projection, random points and residual are decompositions on every device.

    Every vector is tangent, also at the boundary. The retraction equals `W + A` to first order only in the interior. At
    the boundary the cap can lengthen the step: in the spectral norm to at most twice its length, in the Frobenius
    norm not at all. Residual: `max(0, ‖W‖₂/radius − 1)`. Random points are projections of Gaussian matrices.
    Weight decay moves weights to the interior. Source: Miyato et al., "Spectral normalization for generative
    adversarial networks" (2018), as a constraint.
    """

    radius: float = 1.0

    fixed_size = False
    transposes = True
    decides_on_host = True
    has_boundary = True

    def _project(self, x: Tensor) -> Tensor:
        return _capped(x, self.radius)

    def _tangent(self, point: Tensor, vector: Tensor) -> Tensor:
        del point
        return vector.clone()

    def _retract(self, point: Tensor, step: Tensor) -> Tensor:
        return self._retract_within(point, step, math.inf)

    def _retract_within(self, point: Tensor, step: Tensor, length: float) -> Tensor:
        if not readable(point):
            return retract_by_products(point, step, self.radius, length)
        moved = point + step
        capped = capped_by_gram(moved, self.radius)
        if capped is not None:
            return capped
        if bool(torch.isfinite(moved).all()):
            return _capped(moved, self.radius)
        # The sum of large entries overflows; half of it does not.
        return 2 * _capped(point / 2 + step / 2, self.radius / 2)

    def _residual(self, point: Tensor) -> Tensor:
        return (singular_values(point)[..., 0] / self.radius - 1).clamp_min(0)

    def _largest_singular_value(self, shape: tuple[int, int]) -> float:
        del shape
        return self.radius


def retract_by_products(point: Tensor, step: Tensor, radius: float, length: float) -> Tensor:
    """`W + A` with singular values capped at the radius, without a decomposition or a branch.

    Args:
        point: W in the ball, shape (*batch, m, n).
        step: A, shape (*batch, m, n).
        length: a bound on `‖A‖₂`; infinite if none is known.
    """
    # The sum of large entries overflows; half of it does not.
    half = torch.add(point * 0.5, step, alpha=0.5)
    capped, above = capped_by_products(half, radius / 2, largest=largest_in_radii(length / radius))
    return torch.where(above, 2 * capped, point + step)


def _capped(x: Tensor, radius: float) -> Tensor:
    u, sigma, vh, size = decompose(x)
    # Singular values in radii; the cap also holds for values that overflow to infinity.
    radii = sigma * size[..., 0] / radius
    inside = radii[..., :1].unsqueeze(-1) <= 1
    # A point in the ball is returned unchanged, bit for bit.
    return torch.where(inside, x, recompose(u, radii.clamp_max(1), vh, radius, x))
