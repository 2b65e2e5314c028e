"""Nearest points and largest singular values of many large matrices, in a fraction of the time of decompositions."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from modular_manifolds.adapt.fresh import largest_singular_values
from modular_manifolds.linalg.rounding import singular_values
from modular_manifolds.linalg.surroundings import full_precision
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.stiefel import Stiefel

LEAST_ASPECT: Final = 2
"""From this ratio of the sides on a matrix of independent entries is so well conditioned that its Gram matrix tells all."""
LEAST_COLUMNS: Final = 16
"""Smaller matrices are decomposed in no time."""
ACCURATE: Final = 1e-6
"""The residual at which a point by the Gram matrix is accepted."""
MARGINS: Final = (1e-4, 1e-3, 1e-2)
"""By how much an upper bound on `σ_max` may exceed the value of the power iteration; the first that is proved is taken."""
POWER_STEPS: Final = 40
"""Each squares the Gram matrix, so the value is within a per cent or so for independent entries."""


def nearest(manifold: Manifold, value: Tensor) -> Tensor:
    """The nearest point of the manifold: `W (WᵀW)^{-1/2}` for long Stiefel matrices, by its own projection otherwise."""
    sides = sorted(value.shape[-2:])
    long = len(sides) == 2 and sides[1] >= LEAST_ASPECT * sides[0] >= LEAST_ASPECT * LEAST_COLUMNS
    if not (long and type(manifold) is Stiefel):
        return manifold.project(value)
    with full_precision(value.device.type):
        wide = value.shape[-2] < value.shape[-1]
        tall = (value.mT if wide else value).float()
        squares, vectors = torch.linalg.eigh((tall.mT @ tall).double())
        root = (
            vectors * squares.clamp_min(torch.finfo(torch.float64).tiny).rsqrt().unsqueeze(-2)
        ) @ vectors.mT
        point = manifold.radius * (tall @ root.float())
        point = (point.mT if wide else point).contiguous()
    if bool((manifold.residual(point) <= ACCURATE).all()):
        return point.to(value.dtype)
    return manifold.project(value)


def largest_rounded_up(value: Tensor) -> float:
    """A number that no singular value of (*batch, m, n) or (n,) exceeds in float32, at most 1% above `σ_max`.

    `r` is an upper bound if `r² I − WᵀW` has a Cholesky factor, which costs a tenth of a decomposition.
    """
    if value.dim() < 2 or min(value.shape[-2:]) < LEAST_COLUMNS:
        return float(singular_values(value).amax()) * (1 + 1e-6)
    with full_precision(value.device.type):
        matrices = value.float().flatten(0, -3) if value.dim() > 2 else value.float()[None]
        tall = matrices if matrices.shape[-2] >= matrices.shape[-1] else matrices.mT
        size = float(tall.abs().amax())
        if size == 0.0:
            return 0.0
        unit = tall / size
        gram = unit.mT @ unit
        below = float(largest_singular_values(gram, steps=POWER_STEPS).amax()) ** 0.5
        eye = torch.eye(gram.shape[-1], device=gram.device)
        for margin in MARGINS:
            bound = below * (1 + margin)
            if not bool(torch.linalg.cholesky_ex(bound**2 * eye - gram).info.any()):
                return bound * size
    return float(singular_values(value).amax()) * (1 + 1e-6)
