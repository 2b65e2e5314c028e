"""Singular values capped by matrix products, for devices on which a decomposition would make the host wait."""

from __future__ import annotations

import math
import operator

import torch
from torch import Tensor

from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.compilers import constant
from modular_manifolds.linalg.gram_newton_schulz import even_steps
from modular_manifolds.linalg.matrices import MATRIX, exact_scale, length, normalise
from modular_manifolds.linalg.newton_schulz import schedule
from modular_manifolds.linalg.products import commuting, gram_product, product
from modular_manifolds.linalg.symmetric import sym
from modular_manifolds.linalg.symmetric_sign import positive_part, symmetric_sign

EXACT_MAX_RADII = 16.0
"""The largest singular value, in radii, up to which the cap is exact to rounding by default."""

POINT_MARGIN_RADII = 0.125
"""The distance, in radii, by which a point may lie outside. Rounding to bfloat16 moves a weight by less."""


def largest_in_radii(length: float) -> float:
    """A bound on `‖W + A‖₂`, in radii, for W in the ball and `‖A‖₂` at most `length` radii.

    It takes one of four values, so that code is compiled at most four times.
    """
    for largest in (1.25, 1.5, 2.0):
        if 1.0 + POINT_MARGIN_RADII + length <= largest:
            return largest
    return EXACT_MAX_RADII


def capped_by_products(
    x: Tensor, radius: float, *, largest: float = EXACT_MAX_RADII
) -> tuple[Tensor, Tensor]:
    """X with its singular values capped at the radius, and whether any was above the radius.

    With `B = XᵀX`, `D = B − r² I` and `M = r² I + max(D, 0)`, the result is `r X M^{-1/2}`: a singular value σ becomes
    `r σ/max(σ, r)`. An error δ of M at the radius changes the result by δ/2 only.

    Args:
        x: shape (*batch, m, n), of any finite size.
        radius: r.
        largest: an upper bound on `‖X‖₂/r`. If it does not hold, large singular values come out between 0 and r.

    Returns:
        The capped matrices, and whether a singular value is above the radius by more than rounding, shape
        (*batch, 1, 1). If none is, the matrix is X itself, bit for bit. NaN gives NaN.
    """
    wide = x.shape[-2] < x.shape[-1]
    tall = x.mT if wide else x
    if tall.shape[-1] == 1:
        above = ~(length(x, dim=MATRIX) <= radius)
        return torch.where(above, normalise(x, dim=MATRIX) * radius, x), above
    rows, columns = map(operator.index, tall.shape[-2:])
    scale = exact_scale(tall)
    # A radius above ‖Y‖_F caps nothing, and its square could overflow.
    scaled_radius = (radius * scale).clamp_max(2 * math.sqrt(rows * columns))
    root, above = cap_factor(gram_product(tall * scale), scaled_radius, largest)
    result = product(tall, root)
    return torch.where(above, result.mT if wide else result, x), above


def cap_factor(d: Tensor, radius: Tensor, largest: float) -> tuple[Tensor, Tensor]:
    """`r M^{-1/2}` for `B = YᵀY`, of which the entries stay in range when squared twice, and whether Y is above r.

    Args:
        d: B, shape (*batch, n, n); it is written to.
        radius: r, shape (*batch, 1, 1).
        largest: as in `capped_by_products`.
    """
    columns, eps = operator.index(d.shape[-1]), torch.finfo(d.dtype).eps
    square = radius.square()
    d.diagonal(dim1=-2, dim2=-1).sub_(square.squeeze(-1))
    sign, scale_of_d = symmetric_sign(d)
    m = positive_part(d, sign)
    top = torch.linalg.vector_norm(commuting(m, m), dim=MATRIX, keepdim=True).sqrt()
    # NaN counts as above.
    above = torch.logical_not(top <= EXCESS_MAX_EPS * eps * scale_of_d)
    bound = square + top
    m.diagonal(dim1=-2, dim2=-1).add_(square.squeeze(-1))
    root = even_steps(m.div_(bound), _polynomials(largest, columns, eps))
    return sym(root).mul_(radius * bound.rsqrt()), above


EXCESS_MAX_EPS = 16.0
"""The largest excess, in multiples of eps and of the scale of D, that rounding alone causes for a matrix in the ball."""


@constant
def _polynomials(largest: float, columns: int, eps: float) -> tuple[Polynomial, ...]:
    """Polynomials for `M^{-1/2}`, if the eigenvalues of M lie between r² and the bound."""
    bound = 1.0 + columns**0.25 * (largest**2 - 1.0)
    return schedule(eps, bound**-0.5)
