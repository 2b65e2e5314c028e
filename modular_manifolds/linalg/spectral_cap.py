"""Singular values capped by matrix products: for devices on which a decomposition would make the host wait."""

from __future__ import annotations

import math
import operator

import torch
from torch import Tensor

from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.compilers import constant
from modular_manifolds.linalg.gram_newton_schulz import even_steps
from modular_manifolds.linalg.matrices import MATRIX, length, normalise, scale_near_one
from modular_manifolds.linalg.newton_schulz import schedule
from modular_manifolds.linalg.products import commuting, gram_product, product
from modular_manifolds.linalg.symmetric import sym
from modular_manifolds.linalg.symmetric_sign import positive_part, symmetric_sign

LARGEST = 16.0
"""The largest singular value, in radii, up to which the cap is exact to rounding unless a smaller one is stated."""

MARGIN = 0.125
"""How far outside, in radii, a point may be: a weight rounded to bfloat16 lies outside by less."""


def stated_largest(length: float) -> float:
    """A bound on `‖W + A‖₂` of few values, in radii, for W in the ball and `‖A‖₂` at most `length` radii.

    Few, so that compiled code is made for few lengths of steps.
    """
    for largest in (1.25, 1.5, 2.0):
        if 1.0 + MARGIN + length <= largest:
            return largest
    return LARGEST


def capped_by_products(
    x: Tensor, radius: float, *, largest: float = LARGEST
) -> tuple[Tensor, Tensor]:
    """X with its singular values capped at the radius, and whether any was above it.

    With `B = XᵀX`, `D = B − r² I` and `M = r² I + max(D, 0)`, the result is `r X M^{-1/2}`: a singular value σ becomes
    `r σ/max(σ, r)`. An error δ of M at the radius moves the result by δ/2 only.

    Args:
        x: shape (*batch, m, n), of any finite size.
        radius: r.
        largest: an upper bound on `‖X‖₂/r`. If it does not hold, large singular values come out between 0 and r.

    Returns:
        The capped matrices, X itself to the bit if no singular value is above the radius by more than rounding; and
        whether one is, shape (*batch, 1, 1). NaN gives NaN.
    """
    wide = x.shape[-2] < x.shape[-1]
    tall = x.mT if wide else x
    if tall.shape[-1] == 1:
        above = ~(length(x, dim=MATRIX) <= radius)
        return torch.where(above, normalise(x, dim=MATRIX) * radius, x), above
    rows, columns = map(operator.index, tall.shape[-2:])
    eps = torch.finfo(x.dtype).eps
    scale = scale_near_one(tall)
    y = tall * scale
    # From ‖Y‖_F on the radius caps nothing, and its square would overflow.
    scaled_radius = (radius * scale).clamp_max(2 * math.sqrt(rows * columns))
    square = scaled_radius.square()
    d = gram_product(y)
    d.diagonal(dim1=-2, dim2=-1).sub_(square.squeeze(-1))
    sign, scale_of_d = symmetric_sign(d)
    m = positive_part(d, sign)
    top = torch.linalg.vector_norm(commuting(m, m), dim=MATRIX, keepdim=True).sqrt()
    # NaN is above.
    above = torch.logical_not(top <= INSIDE_IN_EPS * eps * scale_of_d)
    bound = square + top
    m.diagonal(dim1=-2, dim2=-1).add_(square.squeeze(-1))
    root = even_steps(m.div_(bound), _polynomials(largest, columns, eps))
    root = sym(root).mul_(scaled_radius * bound.rsqrt())
    result = product(tall, root)
    return torch.where(above, result.mT if wide else result, x), above


INSIDE_IN_EPS = 16.0
"""An excess of this many roundings is no more than what products leave of a matrix inside."""


@constant
def _polynomials(largest: float, columns: int, eps: float) -> tuple[Polynomial, ...]:
    """Polynomials for `M^{-1/2}`, the eigenvalues of M between r² and its bound."""
    bound = 1.0 + columns**0.25 * (largest**2 - 1.0)
    return schedule(eps, bound**-0.5)
