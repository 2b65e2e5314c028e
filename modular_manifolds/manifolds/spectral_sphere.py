"""All matrices of one spectral norm."""

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import inner
from modular_manifolds.linalg.spectrum import decompose, recompose, singular_values
from modular_manifolds.manifolds.base import Manifold, check_radius


@dataclass(frozen=True)
class SpectralSphere(Manifold):
    """`‖W‖₂ = radius`: the largest singular value is fixed, the others lie below.

    With u and v the top singular pair, a tangent A at W has `<u vᵀ, A> = 0`. Where the largest singular value
    is repeated, the set has a corner; the pair that the decomposition gives first stands for all. Projection:
    singular values above the radius are capped, or the largest is raised to it; zero becomes the radius
    times the first basis matrix. Random points are Gaussian ones scaled. Retraction: the projection of
    `W + A`. Residual: `|‖W‖₂/radius − 1|`.
    """

    radius: float = 1.0

    fixed_size = False

    def __post_init__(self) -> None:
        check_radius(self.radius, of=self)

    def _from_noise(self, noise: Tensor) -> Tensor:
        u, sigma, vh, _ = decompose(noise)
        # Scaled and not projected, which would cap nearly all singular values at the radius.
        return recompose(u, sigma / sigma[..., :1], vh, self.radius, noise)

    def _project(self, x: Tensor) -> Tensor:
        return _raised_or_capped(x, self.radius)

    def _tangent(self, point: Tensor, vector: Tensor) -> Tensor:
        pair = top_pair(point).to(vector.dtype)
        return vector - pair * inner(pair, vector)

    def _retract(self, point: Tensor, step: Tensor) -> Tensor:
        moved = point + step
        if bool(torch.isfinite(moved).all()):
            return _raised_or_capped(moved, self.radius)
        # The sum of large entries is out of range, half of it is not.
        return 2 * _raised_or_capped(point / 2 + step / 2, self.radius / 2)

    def _residual(self, point: Tensor) -> Tensor:
        return (singular_values(point)[..., 0] / self.radius - 1).abs()

    def _largest_singular_value(self, shape: tuple[int, int]) -> float:
        del shape
        return self.radius


def _raised_or_capped(x: Tensor, radius: float) -> Tensor:
    u, sigma, vh, size = decompose(x)
    # In radii: infinite where that is out of range, and capped all the same.
    radii = (sigma * size[..., 0] / radius).clamp_max(1)
    first = torch.ones_like(radii[..., :1])
    return recompose(u, torch.cat((first, radii[..., 1:]), dim=-1), vh, radius, x)


def top_pair(point: Tensor) -> Tensor:
    """`u vᵀ` of the largest singular value, shape (*batch, m, n), in float64."""
    u, _, vh, _ = decompose(point)
    return u[..., :, :1] @ vh[..., :1, :]
