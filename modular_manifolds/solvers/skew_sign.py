"""Manifold Muon in closed form: one matrix sign of a skew matrix."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from modular_manifolds.errors import UnsupportedPairError
from modular_manifolds.linalg.backend import Backend, half_is_fast, resolve_on
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.skew_decomposed import DecomposedPlan
from modular_manifolds.solvers.skew_plan import PolynomialPlan, promised


@dataclass(frozen=True)
class SkewSign(Solver):
    """`A = −msign(G Wᵀ − W Gᵀ) W` for a tall W of any shape; a wide one is handled as its transpose.

    Every tangent A is `Ω W` with Ω skew, of shape m×m; and by Parrott's theorem Ω can be chosen with
    `‖Ω‖₂ = ‖A‖₂`. So the unit ball of the tangent space is the image of the unit ball of the skew matrices. There
    `<G, ΩW> = <Γ, Ω>` with `Γ = ½(G Wᵀ − W Gᵀ)`, which the skew `−msign(Γ)` minimises: the value is `−‖Γ‖_nuc`.

    Γ has rank 2n at most. If m > 2n it is written in the orthonormal columns of `[W, G⊥ R⁻¹]`, with
    `C = WᵀG`, `G⊥ = G − WC` and `RᵀR = G⊥ᵀG⊥`:

        Γ = [[skew(C), −½Rᵀ], [½R, 0]]    of shape 2n×2n,    A = −(W Ω₁₁ + G⊥ R⁻¹ Ω₂₁).

    A little is added to `G⊥ᵀG⊥`, as much as rounding may have taken: so the factor exists, and a direction that the
    gradient hardly has gets less than its full step, never more.

    One small matrix on a CPU is decomposed (`DecomposedPlan`). Else Ω comes from polynomials (`PolynomialPlan`; in bfloat16
    if Γ is large and the machine fast in it), is made exactly skew, and a last cubic step in the caller's precision
    brings every singular value to at most 1: the direction is feasible to rounding, whatever the accuracy; if the
    gradient lacks a rank, to half the digits, because `R⁻¹` magnifies the rounding of G⊥. `SkewGap` bounds the gap without
    singular values. A deeper plan lowers the floor of the polynomials, and at last computes in float64.

    Args:
        tolerance: on the relative duality gap.
        max_iterations: how many plans may be tried; each lowers the floor by as much as the gap was too large.
        backend: of the polynomials: `"auto"`, `"torch"`, or `"triton"` for the kernels, which run on cuda.

    Source: M. Solonko, A. Molozhavenko, M. Rakhuba, "Muon on the Stiefel Manifold Admits an Exact Closed-Form Update"
    (2026, arXiv 2608.06218): the formula, its proof and the form of rank 2n. For square W, the Stiefel page of the
    Modula documentation. The extension of Ω is S. Parrott, "On a quotient norm and the Sz.-Nagy–Foiaş lifting
    theorem" (1978), in the form of C. Davis, W. Kahan, H. Weinberger, "Norm-preserving dilations and their
    applications to optimal error bounds" (1982).
    """

    tolerance: float = 1e-2
    max_iterations: int = 16
    backend: Backend = "auto"

    half_the_digits = True
    name = "skew-sign"
    reason = "the steepest direction is −msign(G Wᵀ − W Gᵀ) W, and its gap is known beforehand"

    def plan(
        self,
        manifold: Manifold,
        norm: Norm,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device_type: str,
    ) -> Plan:
        if not isinstance(manifold, Stiefel):
            raise UnsupportedPairError(
                "manifold", "must be Stiefel for this solver", manifold, "Use solver='auto'."
            )
        return _plan(self, manifold, norm.spectral_unit(shape), tuple(shape), dtype, device_type)


@functools.lru_cache(maxsize=1024)
def _plan(
    solver: SkewSign,
    manifold: Stiefel,
    unit: float,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device_type: str,
) -> Plan:
    rows, columns = sorted(shape[-2:], reverse=True)
    on_host, stack = device_type == "cpu", len(shape) > 2
    whole = rows <= 2 * columns or (on_host and not stack and rows <= WHOLE_MAX_ROWS)
    k = rows if whole else 2 * columns
    half = (
        dtype is torch.float32
        and solver.tolerance >= HALF_MIN_TOLERANCE
        and k >= LARGE_MIN_COLUMNS
        and half_is_fast(device_type)
    )
    promise = promised(solver.tolerance, dtype, half=half)
    large = k >= LARGE_MIN_COLUMNS
    double_gram = on_host and not whole and large
    plan = PolynomialPlan(
        solver.tolerance,
        manifold,
        unit,
        rank=min(rows, 2 * columns),
        columns=k,
        whole=whole,
        on_host=on_host,
        dtype=dtype,
        double_gram=double_gram,
        half=half,
        kernels=resolve_on(solver.backend, device_type, dtype) == "triton",
        accuracy=promise.accuracy,
        floor=max(promise.wanted / FLOOR, promise.lowest),
        look=1,
        looks=max(1, solver.max_iterations),
    )
    if on_host and not stack and plan.rank <= DECOMPOSE_MAX_RANK:
        return DecomposedPlan(solver.tolerance, manifold, unit, plan)
    return plan


DECOMPOSE_MAX_RANK = 32
"""Up to this rank of Γ one decomposition costs less than the calls of all the products."""
WHOLE_MAX_ROWS = 96
"""Up to so many rows one Γ of m×m costs less than the calls that make it smaller."""
FLOOR = 5
"""The tolerance over the first floor. It suffices if few singular values are small. A processor sees in time if they are many; on
an accelerator a bucket whose gap is too large gets a deeper plan."""
LARGE_MIN_COLUMNS = 512
"""The fewest columns of Γ at which bfloat16 is quicker, if the machine has hardware for it."""
HALF_MIN_TOLERANCE = 1e-2
"""The lowest tolerance for which bfloat16 is accurate enough."""
