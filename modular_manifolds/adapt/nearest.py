"""Nearest points and largest singular values of many large matrices, in a fraction of the time of decompositions."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.adapt.fresh import largest_singular_values
from modular_manifolds.linalg.gram_newton_schulz import even_steps
from modular_manifolds.linalg.matrices import MATRIX
from modular_manifolds.linalg.newton_schulz import schedule
from modular_manifolds.linalg.polar_factor import polar_factor
from modular_manifolds.linalg.products import gram_product
from modular_manifolds.linalg.rounding import singular_values
from modular_manifolds.linalg.surroundings import full_precision
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.stiefel import Stiefel

LEAST_ASPECT: Final = 2
"""The ratio of the sides from which on the singular values of independent entries lie close together."""
LEAST_COLUMNS: Final = 16
"""Smaller matrices are decomposed in no time."""
ACCURATE: Final = 4e-6
"""The residual at which a point by the Gram matrix is accepted."""
EDGE_ROOM: Final = 1.1
"""How far finite matrices may lie beyond the edges."""
ROUNDING: Final = 2e-6
"""The residual that rounding of float32 leaves."""
NEWTON_STEPS: Final = 16
"""The largest number of Newton steps."""
NEWTON_CHANGE: Final = 1e-3
"""The convergence is quadratic: after a change of this part the next one is rounding."""
MARGINS: Final = (1e-4, 1e-3, 1e-2)
"""By how much an upper bound on `σ_max` may exceed the value of the power iteration; the first that is proved is taken."""
POWER_STEPS: Final = 40
"""Each squares the Gram matrix, so the value is within a per cent or so for independent entries."""


def nearest(manifold: Manifold, value: Tensor) -> Tensor:
    """The nearest point of the manifold: by products if it is Stiefel and they get there, by its own projection otherwise."""
    if type(manifold) is not Stiefel or value.dim() < 2 or min(value.shape[-2:]) < LEAST_COLUMNS:
        return manifold.project(value)
    with full_precision(value.device.type):
        wide = value.shape[-2] < value.shape[-1]
        tall = (value.mT if wide else value).float()
        rows, columns = tall.shape[-2:]
        if rows >= LEAST_ASPECT * columns:
            point, residual = _long_polar_factor(tall)
        elif rows == columns:
            point, residual = _square_polar_factor(tall)
        else:
            size = tall.abs().amax(dim=MATRIX, keepdim=True).clamp_min(torch.finfo().tiny)
            point, residual = _landed(polar_factor(tall / size))
        point = manifold.radius * (point.mT if wide else point)
    if residual <= ACCURATE:
        return point.to(value.dtype)
    return manifold.project(value)


def _long_polar_factor(x: Tensor) -> tuple[Tensor, float]:
    """`X (XᵀX)^{-1/2}` of X with independent entries, and a bound on how far the singular values of the result are from 1.

    The squares of such singular values lie in `mean · (1 ± √(n/m))²` (Marchenko and Pastur), and a few polynomials bring them
    near 1. For other matrices the second number is large, and says so.
    """
    rows, columns = x.shape[-2:]
    root = math.sqrt(columns / rows)
    gram = gram_product(x)
    mean = gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
    largest = (mean * ((1 + root) ** 2 * EDGE_ROOM)).clamp_min(torch.finfo().tiny)
    gram = gram / largest
    q = even_steps(gram, schedule(1e-3, (1 - root) / (1 + root) / EDGE_ROOM))
    off = q @ gram @ q - _identity_like(gram)
    # The binomial series of (I + E)^{-1/2}, to E²: E³ is left.
    square = off @ off
    landing = 0.375 * square - 0.5 * off + _identity_like(gram)
    left = torch.linalg.vector_norm(square, dim=MATRIX).amax() ** 1.5
    return x @ (q @ landing / largest.sqrt()), float(left) + ROUNDING


def _square_polar_factor(x: Tensor) -> tuple[Tensor, float]:
    """The same for square X by Newton's iteration `X ← ½ (γX + X⁻ᵀ/γ)`, `γ² = ‖X⁻¹‖_F/‖X‖_F`.

    It is backward stable: the result is exact for a matrix within rounding of X.

    Source: Higham, "Computing the polar decomposition" (1986).
    """
    for _ in range(NEWTON_STEPS):
        inverse, failed = torch.linalg.inv_ex(x)
        if bool(failed.any()):
            return x, math.inf
        length, other = (
            torch.linalg.vector_norm(each, dim=MATRIX, keepdim=True) for each in (x, inverse)
        )
        scale = (other / length).sqrt()
        following = scale * x / 2 + inverse.mT / (2 * scale)
        change = float((following - x).abs().amax() / following.abs().amax())
        x = following
        if change < NEWTON_CHANGE:
            break
    return _landed(x)


def _landed(point: Tensor) -> tuple[Tensor, float]:
    """A point and the largest entry of `|XᵀX − I|`."""
    return point, float((gram_product(point) - _identity_like(point)).abs().amax())


def _identity_like(x: Tensor) -> Tensor:
    return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)


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
