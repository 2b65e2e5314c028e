"""The sign of a symmetric matrix by matrix products, and its positive part."""

from __future__ import annotations

import torch
from torch import Tensor

from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.compilers import constant
from modular_manifolds.linalg.matrices import MATRIX
from modular_manifolds.linalg.newton_schulz import schedule
from modular_manifolds.linalg.products import commuting
from modular_manifolds.linalg.symmetric import sym


def symmetric_sign(d: Tensor) -> tuple[Tensor, Tensor]:
    """`sign(D)` of symmetric matrices, and a scale s with `‖D‖₂ ≤ s ≤ n^{1/4} ‖D‖₂`.

    Every eigenvalue λ of D becomes `p(λ/s)` for a run p of odd polynomials: ±1 to rounding if `|λ|` is at least
    1e-6 s (1e-13 s in float64), and between 0 and ±1 if it is smaller. So `D sign(D)` is `|D|` to within half that
    floor. It needs no decomposition and reads nothing on the host.

    Args:
        d: shape (*batch, n, n), symmetric to rounding; fourth powers of its entries must stay in range. Zero gives zero.

    Returns:
        The sign, shape (*batch, n, n), and s, shape (*batch, 1, 1).
    """
    # A Gram matrix is symmetric to rounding only, and D may be the rounding of one.
    d = sym(d)
    square = commuting(d, d)
    size = torch.linalg.vector_norm(square, dim=MATRIX, keepdim=True)
    size = size.clamp_min(torch.finfo(d.dtype).tiny)
    scale = size.sqrt()
    x, r = d / scale, square / size
    # R is computed from X at every step: it holds squares, and an updated R would lose eigenvalues below √eps.
    for i, (a, b, c) in enumerate(_polynomials(torch.finfo(d.dtype).eps)):
        r = r if i == 0 else commuting(x, x)
        factor = c * r
        factor.diagonal(dim1=-2, dim2=-1).add_(b)
        factor = commuting(r, factor)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        # The rounding of a product is not symmetric on every processor, and would grow at every step.
        x = sym(commuting(x, factor))
    return x, scale


def positive_part(d: Tensor, sign: Tensor) -> Tensor:
    """`max(D, 0) = (D + D sign(D))/2`, exactly symmetric."""
    return sym(d + commuting(d, sign)).mul_(0.5)


FLOOR_IN_EPS = 8.0
"""The floor of the sign, in multiples of eps: eigenvalues below it may be rounding errors."""


@constant
def _polynomials(eps: float) -> tuple[Polynomial, ...]:
    return schedule(FLOOR_IN_EPS * eps, FLOOR_IN_EPS * eps)
