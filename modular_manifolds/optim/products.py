"""Products of a step: the multiplications of each solver, as a function of the shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from modular_manifolds.solvers.skew_sign import BF16_MIN_COLUMNS, RESOLVENT_MIN_COLUMNS

POLYNOMIALS: Final = 6
"""The polynomials of a matrix sign at the usual tolerance, in bfloat16."""
FLOAT32_POLYNOMIALS: Final = 5
"""Those of manifold Muon in float32, whose rounding takes less of the tolerance."""
INVERSES: Final = 7
"""The inverses that take the place of polynomials on a CPU."""


def skew_sign(m: int, n: int, device_type: str) -> float:
    """Manifold Muon. A retraction is two products of m×n×n and one of n×n×n."""
    on_host = device_type == "cpu"
    retraction = 2 * m * n**2 + n**3
    if on_host and m > 2 * n and n >= RESOLVENT_MIN_COLUMNS:
        return 5 * m * n**2 + INVERSES * n**3 + retraction
    k = m if m <= 2 * n else 2 * n
    half = k >= BF16_MIN_COLUMNS and not on_host
    polynomials = 3 * (POLYNOMIALS if half else FLOAT32_POLYNOMIALS) * k**3
    if m <= 2 * n:
        # Γ, and three products with it.
        return 4 * n * m**2 + polynomials + retraction
    # C, G⊥, its Gram matrix and the direction; a Cholesky factor, a triangular solve, and two products of k×k×n.
    return 5 * m * n**2 + (2 / 3 + 8) * n**3 + polynomials + retraction


def norm_steepest(m: int, n: int, device_type: str) -> float:
    """A spectral norm without a manifold: each polynomial is a Gram matrix, its square, and a product with X."""
    del device_type
    return POLYNOMIALS * (2 * m * n**2 + n**3)


BY_SHAPE: Final[dict[str, Callable[[int, int, str], float]]] = {
    "skew-sign": skew_sign,
    "norm-steepest": norm_steepest,
}
"""The multiplications of a solver for m ≥ n, and the type of the device."""

CONSTANT: Final = {
    "spectral-sphere-dual": 100.0,
    "tangent-gradient": 0.0,
    "row-tangent-gradient": 0.0,
    "weighted-median": 0.0,
}
"""Multiplications in units of `m n²`, of solvers that have no products, and of one that was counted for 64×64 and 256×64."""

UNKNOWN: Final = 30.0
"""The same for a solver that is in neither table."""


def multiplications(solver: str, rows: int, columns: int, device_type: str) -> float:
    """The multiplications of a step of one matrix, in whatever precision.

    Args:
        solver: its name.
        rows: the rows of the matrix.
        columns: its columns.
        device_type: of the weight.
    """
    m, n = max(rows, columns), min(rows, columns)
    by_shape = BY_SHAPE.get(solver)
    if by_shape is None:
        return CONSTANT.get(solver, UNKNOWN) * m * n**2
    return by_shape(m, n, device_type)
