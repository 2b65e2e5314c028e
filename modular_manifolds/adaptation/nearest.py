"""Nearest points on manifolds, and largest singular values, of large matrices without decompositions."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.adaptation.fresh import largest_singular_values
from modular_manifolds.linalg.gram_newton_schulz import even_steps
from modular_manifolds.linalg.inverses import inverse
from modular_manifolds.linalg.matrices import MATRIX
from modular_manifolds.linalg.newton_schulz import schedule
from modular_manifolds.linalg.polar_factor import polar_factor
from modular_manifolds.linalg.products import gram_product
from modular_manifolds.linalg.rounding import singular_values
from modular_manifolds.linalg.surroundings import full_precision
from modular_manifolds.linalg.symmetric import eye_like
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.stiefel import Stiefel

MIN_ASPECT_RATIO: Final = 2
"""The smallest ratio of the sides at which singular values of random matrices are close to each other."""
MIN_COLUMNS: Final = 16
"""Decompositions of matrices with fewer columns are fast enough."""
ACCEPTED_RESIDUAL: Final = 4e-6
"""The largest accepted residual of a point that was computed by products."""
EDGE_SLACK_FACTOR: Final = 1.1
"""How far the singular values of finite random matrices may exceed the asymptotic edges, as a factor."""
FLOAT32_RESIDUAL: Final = 2e-6
"""The residual that rounding in float32 causes."""
NEWTON_STEPS: Final = 16
"""The largest number of Newton steps."""
NEWTON_MAX_CHANGE_RELATIVE: Final = 1e-3
"""The iteration stops after a relative change below this: it converges quadratically, so the next change is rounding."""
BOUND_MARGINS_RELATIVE: Final = (1e-4, 1e-3, 1e-2)
"""The relative margins of an upper bound on `σ_max` over the power iteration; the first that can be proved is used."""
POWER_STEPS: Final = 40
"""With this many steps the estimate of `σ_max` is within about 1 % for independent entries."""


def nearest(manifold: Manifold, value: Tensor) -> Tensor:
    """The nearest point of the manifold: on Stiefel by products if they are accurate, otherwise by its own projection."""
    if type(manifold) is not Stiefel or value.dim() < 2 or min(value.shape[-2:]) < MIN_COLUMNS:
        return manifold.project(value)
    with full_precision(value.device.type):
        wide = value.shape[-2] < value.shape[-1]
        tall = (value.mT if wide else value).float()
        rows, columns = tall.shape[-2:]
        if rows >= MIN_ASPECT_RATIO * columns:
            point, residual = _tall_polar_factor(tall)
        elif rows == columns:
            point, residual = _square_polar_factor(tall)
        else:
            size = tall.abs().amax(dim=MATRIX, keepdim=True).clamp_min(torch.finfo().tiny)
            point, residual = _with_residual(polar_factor(tall / size))
        point = manifold.radius * (point.mT if wide else point)
    if residual <= ACCEPTED_RESIDUAL:
        return point.to(value.dtype)
    return manifold.project(value)


def _tall_polar_factor(x: Tensor) -> tuple[Tensor, float]:
    """`X (XᵀX)^{-1/2}` of X with independent entries, and a bound on the distance of its singular values from 1.

    The squared singular values of such X lie in `mean · (1 ± √(n/m))²` (Marchenko and Pastur), and a few polynomials move
    them close to 1. For other matrices the bound is large.
    """
    rows, columns = x.shape[-2:]
    root = math.sqrt(columns / rows)
    gram = gram_product(x)
    mean = gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
    largest = (mean * ((1 + root) ** 2 * EDGE_SLACK_FACTOR)).clamp_min(torch.finfo().tiny)
    gram = gram / largest
    q = even_steps(gram, schedule(1e-3, (1 - root) / (1 + root) / EDGE_SLACK_FACTOR))
    error = q @ gram @ q - eye_like(gram)
    # The binomial series of (I + E)^{-1/2} up to E²; the remainder is of order E³.
    square = error @ error
    landing = 0.375 * square - 0.5 * error + eye_like(gram)
    remainder = torch.linalg.vector_norm(square, dim=MATRIX).amax() ** 1.5
    return x @ (q @ landing / largest.sqrt()), float(remainder) + FLOAT32_RESIDUAL


def _square_polar_factor(x: Tensor) -> tuple[Tensor, float]:
    """The polar factor of square X, and its residual, by Newton's iteration `X ← ½ (γX + X⁻ᵀ/γ)`, `γ² = ‖X⁻¹‖_F/‖X‖_F`.

    It is backward stable: the result is exact for a matrix that differs from X by rounding.

    Source: Higham, "Computing the polar decomposition" (1986).
    """
    for _ in range(NEWTON_STEPS):
        inverted, failed = inverse(x)
        if bool(failed.any()):
            return x, math.inf
        length, inverse_length = (
            torch.linalg.vector_norm(each, dim=MATRIX, keepdim=True) for each in (x, inverted)
        )
        scale = (inverse_length / length).sqrt()
        next_x = scale * x / 2 + inverted.mT / (2 * scale)
        change = float((next_x - x).abs().amax() / next_x.abs().amax())
        x = next_x
        if change < NEWTON_MAX_CHANGE_RELATIVE:
            break
    return _with_residual(x)


def _with_residual(point: Tensor) -> tuple[Tensor, float]:
    """A point, and its residual, the largest entry of `|XᵀX − I|`."""
    return point, float((gram_product(point) - eye_like(point)).abs().amax())


def largest_singular_value_bound(value: Tensor) -> float:
    """An upper bound on all singular values of (*batch, m, n) or (n,) in float32, at most 1 % above `σ_max`.

    `r` is an upper bound if `r² I − WᵀW` has a Cholesky factor, which costs a tenth of a decomposition.
    """
    if value.dim() < 2 or min(value.shape[-2:]) < MIN_COLUMNS:
        return float(singular_values(value).amax()) * (1 + 1e-6)
    with full_precision(value.device.type):
        matrices = value.float().flatten(0, -3) if value.dim() > 2 else value.float()[None]
        tall = matrices if matrices.shape[-2] >= matrices.shape[-1] else matrices.mT
        size = float(tall.abs().amax())
        if size == 0.0:
            return 0.0
        unit = tall / size
        gram = unit.mT @ unit
        lower_bound = float(largest_singular_values(gram, steps=POWER_STEPS).amax()) ** 0.5
        eye = torch.eye(gram.shape[-1], device=gram.device)
        for margin in BOUND_MARGINS_RELATIVE:
            bound = lower_bound * (1 + margin)
            if not bool(torch.linalg.cholesky_ex(bound**2 * eye - gram).info.any()):
                return bound * size
    return float(singular_values(value).amax()) * (1 + 1e-6)
