"""The matrix sign `msign(X) = U Vᵀ` for the thin singular value decomposition `X = U Σ Vᵀ`."""

from __future__ import annotations

import operator
from typing import Literal

import torch
from torch import Tensor

from modular_manifolds.arguments import Range, check_number
from modular_manifolds.errors import NonFiniteError
from modular_manifolds.linalg.backend import Backend, half_is_fast, msign_by_kernels, resolve
from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.compilers import constant, plain
from modular_manifolds.linalg.gram_newton_schulz import gram_iterate
from modular_manifolds.linalg.matrices import MATRIX, as_matrices, normalise, restore, scale_exactly
from modular_manifolds.linalg.newton_schulz import schedule
from modular_manifolds.linalg.surroundings import full_precision

DEFAULT_FLOOR = 1e-3
"""The default floor, relative to the largest singular value."""
FLOAT32_MIN_ACCURACY = 1e-5
"""The finest accuracy of a singular value in float32, whose rounding turns singular vectors by up to 1e-5."""
SHARED_GRAM_MIN_ACCURACY = 1e-3
"""The finest accuracy for several steps on one Gram matrix, whose rounding moves singular values by 1e-4."""
ACCURACIES = Range("must be 'exact' or lie in [1e-15, 1)", lambda x: 1e-15 <= x < 1)
FLOORS = Range("must lie in [1e-8, 1]", lambda x: 1e-8 <= x <= 1)


def msign(
    x: Tensor,
    *,
    accuracy: float | Literal["exact"] = 1e-3,
    floor: float = DEFAULT_FLOOR,
    backend: Backend = "auto",
) -> Tensor:
    """The nearest matrix with orthonormal columns (rows, if X is wide).

    `msign(X) = U Vᵀ` with `X = U Σ Vᵀ`, also called the polar factor or the orthogonalisation of X. The polynomial
    form compiles to one graph for each accuracy, floor and smaller side.

    Args:
        x: shape (*batch, m, n), any real floating-point dtype; a vector of length n counts as (n, 1).
        accuracy: how far from 1 the singular values of the result may be, or `"exact"` for a singular
            value decomposition.
        floor: the accuracy holds for singular values of at least `floor · ‖X‖₂`. Smaller ones come out
            between 0 and 1 + accuracy.
        backend: `"auto"`, `"torch"` or `"triton"`. The kernels run on cuda; `"exact"` has none.

    Returns:
        A new tensor of the shape and dtype of `x`. It is computed in at least float32 (float64 if the accuracy is below
        1e-5) and then rounded to the dtype of `x`. It is computed in bfloat16 if the matrix has at least 256 columns,
        the accuracy is at least 0.05, the floor is at least 0.01 and the machine has hardware for it. Zero gives zero,
        also with `"exact"`. Entries of 1e-30 and of 1e+30 give the same result, and finite input never gives NaN.
        Autocast and torch's precision settings change nothing.

    Raises:
        ArgumentError: `accuracy` or `floor` is out of range.
        NonFiniteError: `x` holds NaN or infinity and `accuracy="exact"` (the polynomial form does
            not check, so that it need not wait for the device; it gives NaN for NaN).
        BackendError: the backend named cannot be used.

    Source: Amsel et al. (2025, arXiv 2505.16932); the polynomials are computed for the accuracy and the floor.
    """
    matrices = as_matrices(x, argument="msign(x)")
    with full_precision(x.device.type):
        if accuracy == "exact":
            resolve(
                backend, x, no_kernel="accuracy='exact' is a decomposition, which has no kernel"
            )
            return restore(_by_decomposition(matrices), x)
        return _by_polynomials(x, matrices, accuracy, floor, backend)


def _by_polynomials(
    x: Tensor, matrices: Tensor, accuracy: float, floor: float, backend: Backend
) -> Tensor:
    accuracy = check_number(accuracy, ACCURACIES, argument="accuracy", remedy="Pass 1e-3.")
    floor = check_number(floor, FLOORS, argument="floor", remedy="Pass 1e-3.")
    needs_float64 = accuracy < FLOAT32_MIN_ACCURACY and matrices.dtype is torch.float32
    no_kernel = (
        f"an accuracy below {FLOAT32_MIN_ACCURACY:g} is computed in float64"
        if needs_float64
        else None
    )
    chosen = resolve(backend, x, no_kernel=no_kernel)
    matrices = matrices.double() if needs_float64 else matrices
    wide = matrices.shape[-2] < matrices.shape[-1]
    tall = matrices.mT if wide else matrices
    # Compiled code is specialised on the numbers that the polynomials depend on.
    columns = operator.index(tall.shape[-1])
    polynomials, half = msign_polynomials(plain(accuracy), plain(floor), columns, tall.device.type)
    if chosen == "triton":
        matrix_or_column = x.unsqueeze(-1) if x.dim() == 1 else x
        return restore(msign_by_kernels(matrix_or_column, polynomials, half=half), x)
    result, _ = gram_iterate(
        scale_exactly(tall, dtype=torch.bfloat16 if half else tall.dtype),
        polynomials,
        steps_per_gram=1 if accuracy < SHARED_GRAM_MIN_ACCURACY else None,
    )
    result = result.to(tall.dtype)
    return restore(result.mT if wide else result, x)


@constant
def msign_polynomials(
    accuracy: float, floor: float, columns: int, device_type: str
) -> tuple[tuple[Polynomial, ...], bool]:
    """The polynomials of `msign` for a smaller side of `columns`, and whether they run in bfloat16.

    After the normalisation by `‖XᵀX‖_F^{1/2}` the largest singular value is at least `columns^{-1/4}`.
    """
    coarse = accuracy >= BF16_MIN_ACCURACY and floor >= BF16_MIN_FLOOR
    half = coarse and columns >= BF16_MIN_COLUMNS and half_is_fast(device_type)
    lowest = floor / columns**0.25
    return schedule(BF16_ACCURACY_SHARE * accuracy if half else accuracy, lowest, half=half), half


BF16_MIN_ACCURACY = 0.05
"""The finest accuracy of a singular value that bfloat16 reaches."""
BF16_MIN_FLOOR = 0.01
"""The lowest relative floor for bfloat16. Polynomials for lower floors are steeper, and rounding then moves singular
values out of their range."""
BF16_MIN_COLUMNS = 256
"""The smallest number of columns at which products in bfloat16 are faster than in float32."""
BF16_ACCURACY_SHARE = 0.5
"""The fraction of the accuracy that the polynomials use in bfloat16; the rest is for rounding."""


def _by_decomposition(matrices: Tensor) -> Tensor:
    if not bool(torch.isfinite(matrices).all()):
        raise NonFiniteError(
            "msign(x)", "must be finite", "NaN or infinity", "Look where it came from."
        )
    scaled = normalise(matrices, dim=MATRIX)
    u, sigma, vh = torch.linalg.svd(scaled, full_matrices=False)
    kept = (sigma > 0).to(u.dtype).unsqueeze(-2)
    return (u * kept) @ vh
