"""The matrix sign, the one entry: `msign(X) = U Vᵀ` for the thin singular value decomposition `X = U Σ Vᵀ`."""

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
from modular_manifolds.linalg.matrices import MATRIX, as_matrices, near_one, normalise, restore
from modular_manifolds.linalg.newton_schulz import schedule
from modular_manifolds.linalg.surroundings import full_precision

FLOOR = 1e-3
FINE = 1e-5
"""Below this accuracy rounding in float32 is too coarse: it turns singular vectors by up to 1e-5."""
SEVERAL = 1e-3
"""The finest accuracy at which several steps may be made on one Gram matrix, whose rounding moves singular values by 1e-4."""
ACCURACIES = Range("must be 'exact' or lie in [1e-15, 1)", lambda x: 1e-15 <= x < 1)
FLOORS = Range("must lie in [1e-8, 1]", lambda x: 1e-8 <= x <= 1)


def msign(
    x: Tensor,
    *,
    accuracy: float | Literal["exact"] = 1e-3,
    floor: float = FLOOR,
    backend: Backend = "auto",
) -> Tensor:
    """The nearest matrix with orthonormal columns (rows, if X is wide).

    `msign(X) = U Vᵀ` with `X = U Σ Vᵀ`, also called the polar factor or the orthogonalisation of X. By polynomials
    it is one graph to `torch.compile`, made anew for another accuracy, floor or smaller side.

    Args:
        x: shape (*batch, m, n), any real floating-point dtype; a vector of length n counts as (n, 1).
        accuracy: how far from 1 the singular values of the result may be, or `"exact"` for a singular
            value decomposition.
        floor: the promise holds for singular values of at least `floor · ‖X‖₂`. Smaller ones come out
            between 0 and 1 + accuracy: of a direction that X hardly has, less is kept.
        backend: `"auto"`, `"torch"` or `"triton"`. The kernels run on cuda; `"exact"` has none.

    Returns:
        A new tensor of the shape and dtype of `x`. It is computed in at least float32, for an accuracy below 1e-5 in
        float64, and then rounded to the dtype of `x`. Matrices of 256 columns and more are computed in bfloat16 if an
        accuracy of 0.05 or more and a floor of 0.01 or more are asked for and the machine has hardware for it. Zero
        gives zero, also with `"exact"`. Entries of 1e-30 and of 1e+30 give the same result, and finite input never
        gives NaN. Autocast and torch's precision settings change nothing.

    Raises:
        ArgumentError: `accuracy` or `floor` is out of range.
        NonFiniteError: `x` holds NaN or infinity and `accuracy="exact"` (the polynomial form does
            not look, so as not to wait for the device; it gives NaN for NaN).
        BackendError: the backend named cannot be used.

    Source: Amsel et al. (2025, arXiv 2505.16932), for the accuracy and the floor asked for.
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
    fine = accuracy < FINE and matrices.dtype is torch.float32
    no_kernel = f"an accuracy below {FINE:g} is computed in float64" if fine else None
    chosen = resolve(backend, x, no_kernel=no_kernel)
    matrices = matrices.double() if fine else matrices
    wide = matrices.shape[-2] < matrices.shape[-1]
    tall = matrices.mT if wide else matrices
    # The polynomials depend on these: compiled code is for one choice of them.
    promise, columns = (plain(accuracy), plain(floor)), operator.index(tall.shape[-1])
    polynomials, half = msign_polynomials(*promise, columns, tall.device.type)
    if chosen == "triton":
        given = x.unsqueeze(-1) if x.dim() == 1 else x
        return restore(msign_by_kernels(given, polynomials, half=half), x)
    result, _ = gram_iterate(
        near_one(tall, dtype=torch.bfloat16 if half else tall.dtype),
        polynomials,
        together=1 if accuracy < SEVERAL else None,
    )
    result = result.to(tall.dtype)
    return restore(result.mT if wide else result, x)


@constant
def msign_polynomials(
    accuracy: float, floor: float, columns: int, device_type: str
) -> tuple[tuple[Polynomial, ...], bool]:
    """The polynomials that `msign` takes if the smaller side has `columns`, and whether in bfloat16.

    After the normalisation by `‖XᵀX‖_F^{1/2}` the largest singular value is at least `columns^{-1/4}`.
    """
    coarse = accuracy >= HALF and floor >= HALF_FLOOR
    half = coarse and columns >= WIDE and half_is_fast(device_type)
    lowest = floor / columns**0.25
    return schedule(LEFT * accuracy if half else accuracy, lowest, half=half), half


HALF = 0.05
"""The finest accuracy for which bfloat16 is accurate enough. It is used if the machine is fast in it."""
HALF_FLOOR = 0.01
"""The lowest floor for bfloat16: polynomials for lower ones are so steep that rounding throws singular values out of range."""
WIDE = 256
"""The fewest columns at which products in bfloat16 are quicker."""
LEFT = 0.5
"""The part of the accuracy that polynomials may use up in bfloat16; the rest is its rounding's."""


def _by_decomposition(matrices: Tensor) -> Tensor:
    if not bool(torch.isfinite(matrices).all()):
        raise NonFiniteError(
            "msign(x)", "must be finite", "NaN or infinity", "Look where it came from."
        )
    scaled = normalise(matrices, dim=MATRIX)
    u, sigma, vh = torch.linalg.svd(scaled, full_matrices=False)
    kept = (sigma > 0).to(u.dtype).unsqueeze(-2)
    return (u * kept) @ vh
