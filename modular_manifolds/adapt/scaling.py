"""Units: the radius at which the points of a manifold have norm 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import torch

from modular_manifolds.manifolds.balanced_rows import BalancedRows
from modular_manifolds.manifolds.base import Manifold
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


def _one(_: Shape) -> float:
    return 1.0


def _rms(shape: Shape) -> float:
    return math.sqrt(shape[0] / shape[1])


def _rank(shape: Shape) -> float:
    return math.sqrt(min(shape))


UNIT_RADIUS: Final[Mapping[tuple[type[Manifold], type[Norm]], Callable[[Shape], float]]] = (
    MappingProxyType(
        {
            (Stiefel, Spectral): _one,
            (Stiefel, RMSOperator): _rms,
            (Stiefel, Frobenius): lambda s: 1 / _rank(s),
            (SpectralBall, Spectral): _one,
            (SpectralBall, RMSOperator): _rms,
            (SpectralBall, Frobenius): lambda s: 1 / _rank(s),
            (SpectralSphere, Spectral): _one,
            (SpectralSphere, RMSOperator): _rms,
            (SpectralSphere, Frobenius): lambda s: 1 / _rank(s),
            (Sphere, Frobenius): _one,
            (Sphere, Spectral): _rank,
            (Sphere, RMSOperator): lambda s: _rms(s) * _rank(s),
            (Sphere, Max): lambda s: math.sqrt(s[0] * s[1]),
            (Oblique, RowRMS): lambda s: math.sqrt(s[1]),
            (Oblique, Frobenius): lambda s: 1 / math.sqrt(s[0]),
            (BalancedRows, RowRMS): lambda s: math.sqrt(s[1]),
            (BalancedRows, Frobenius): lambda s: 1 / math.sqrt(s[0]),
        }
    )
)
"""The radius for matrices of shape (out, in).

If the points of a manifold differ in norm, the radius belongs to the typical one: on a `Sphere` a matrix with equal singular
values for spectral norms, and one with equal entries for `Max`; on spectral balls and spheres the largest norm.
"""


def in_units(manifold: Manifold, norm: Norm, shape: Shape) -> Manifold:
    """The manifold, scaled so that its points of this shape (out, in) have norm 1 instead of radius 1.

    A manifold or a norm of your own is scaled by the norm of a random point.
    """
    if not manifold.compact:
        return manifold
    radius = UNIT_RADIUS.get((type(manifold), type(norm)))
    if radius is not None:
        factor = radius(shape)
    else:
        generator = torch.Generator().manual_seed(0)
        point = manifold.random(shape, generator=generator, dtype=torch.float64, device="cpu")
        own = getattr(manifold, "radius", 1.0)
        factor = own / float(norm.value(point))
    return manifold if factor == 1.0 else manifold.scaled(factor)
