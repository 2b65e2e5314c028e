"""Units: the radius at which the points of a manifold have norm 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import torch

from modular_manifolds.manifolds.balanced_rows import BalancedRows
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.fixed_gram import FixedGram
from modular_manifolds.manifolds.oblique import Oblique
from modular_manifolds.manifolds.spectral_ball import SpectralBall
from modular_manifolds.manifolds.spectral_sphere import SpectralSphere
from modular_manifolds.manifolds.sphere import Sphere
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.norms.base import Norm
from modular_manifolds.norms.frobenius import Frobenius
from modular_manifolds.norms.max import Max
from modular_manifolds.norms.rms_operator import RMSOperator
from modular_manifolds.norms.row_rms import RowRMS
from modular_manifolds.norms.spectral import Spectral

Shape: TypeAlias = tuple[int, int]


def _unit(_: Shape) -> float:
    return 1.0


def _sqrt_aspect(shape: Shape) -> float:
    return math.sqrt(shape[0] / shape[1])


def _sqrt_rank(shape: Shape) -> float:
    return math.sqrt(min(shape))


UNIT_RADIUS: Final[Mapping[tuple[type[Manifold], type[Norm]], Callable[[Shape], float]]] = (
    MappingProxyType(
        {
            (Stiefel, Spectral): _unit,
            (Stiefel, RMSOperator): _sqrt_aspect,
            (Stiefel, Frobenius): lambda s: 1 / _sqrt_rank(s),
            (FixedGram, Spectral): _unit,
            (FixedGram, RMSOperator): _sqrt_aspect,
            (SpectralBall, Spectral): _unit,
            (SpectralBall, RMSOperator): _sqrt_aspect,
            (SpectralBall, Frobenius): lambda s: 1 / _sqrt_rank(s),
            (SpectralSphere, Spectral): _unit,
            (SpectralSphere, RMSOperator): _sqrt_aspect,
            (SpectralSphere, Frobenius): lambda s: 1 / _sqrt_rank(s),
            (Sphere, Frobenius): _unit,
            (Sphere, Spectral): _sqrt_rank,
            (Sphere, RMSOperator): lambda s: _sqrt_aspect(s) * _sqrt_rank(s),
            (Sphere, Max): lambda s: math.sqrt(s[0] * s[1]),
            (Oblique, RowRMS): lambda s: math.sqrt(s[1]),
            (Oblique, Frobenius): lambda s: 1 / math.sqrt(s[0]),
            (BalancedRows, RowRMS): lambda s: math.sqrt(s[1]),
            (BalancedRows, Frobenius): lambda s: 1 / math.sqrt(s[0]),
        }
    )
)
"""The radius for matrices of shape (out, in).

If points of the manifold have different norms, a typical point decides: on a `Sphere` a matrix with equal singular values
for spectral norms, and a matrix with equal entries for `Max`. On spectral balls and spheres, and for `FixedGram`, the largest norm decides.
"""


def scale_to_unit_norm(manifold: Manifold, norm: Norm, shape: Shape) -> Manifold:
    """The manifold, scaled so that its points of this shape (out, in) have norm 1.

    For a manifold or norm outside `UNIT_RADIUS` the norm of a random point decides.
    """
    if not manifold.compact:
        return manifold
    radius = UNIT_RADIUS.get((type(manifold), type(norm)))
    if radius is not None:
        factor = radius(shape)
    else:
        generator = torch.Generator().manual_seed(0)
        point = manifold.random(shape, generator=generator, dtype=torch.float64, device="cpu")
        radius_of_point = getattr(manifold, "radius", 1.0)
        factor = radius_of_point / float(norm.value(point))
    return manifold if factor == 1.0 else manifold.scaled(factor)
