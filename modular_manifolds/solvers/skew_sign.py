"""Manifold Muon in closed form: one matrix sign of a skew matrix."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from modular_manifolds.errors import UnsupportedPairError
from modular_manifolds.linalg.backend import Backend, half_is_fast, resolve_on
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.fixed_gram import FixedGram
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.floors import promised
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.resolvent_plan import TOLERANCE_TO_RESOLVENT_FLOOR, ResolventPlan
from modular_manifolds.solvers.skew_decomposed import DecomposedPlan
from modular_manifolds.solvers.skew_plan import FLOAT32_MIN_TOLERANCE, PolynomialPlan


@dataclass(frozen=True)
class SkewSign(Solver):
    """`A = −msign(G Wᵀ − W Gᵀ) W` for a tall W of any shape; a wide one is handled as its transpose.

    Every tangent A is `Ω W` with Ω skew, of shape m×m; and by Parrott's theorem Ω can be chosen with
    `‖Ω‖₂ = ‖A‖₂`. So the unit ball of the tangent space is the image of the unit ball of the skew matrices. For
    these `<G, ΩW> = <Γ, Ω>` with `Γ = ½(G Wᵀ − W Gᵀ)`. The skew `−msign(Γ)` minimises it, with the value `−‖Γ‖_nuc`.

    Γ has rank 2n at most. If m > 2n it is written in the orthonormal columns of `[W, G⊥ R⁻¹]`, with
    `C = WᵀG`, `G⊥ = G − WC` and `RᵀR = G⊥ᵀG⊥`:

        Γ = [[skew(C), −½Rᵀ], [½R, 0]]    of shape 2n×2n,    A = −(W Ω₁₁ + G⊥ R⁻¹ Ω₂₁).

    A multiple of I as large as the rounding error is added to `G⊥ᵀG⊥`, so that its Cholesky factor exists. In directions
    of tiny singular values of G⊥ the step is then shorter than its full length, never longer. A G⊥ that is rounding itself
    counts as zero.

    On `FixedGram` the turns Ω are those of W itself, `A = −msign(G Wᵀ − W Gᵀ) W/radius`, the direction with the largest
    descent for `‖Ω‖₂ ≤ 1/radius`. If m > 2n, the columns of `W = QB` are made orthonormal: Γ is that of Q and G Bᵀ, and the
    direction that of Q, times B.

    One small matrix on a CPU is decomposed (`DecomposedPlan`). On a CPU, msign of a large Γ of 2n×2n is a rational function
    of Zolotarev's, by inverses of n×n matrices (`ResolventPlan`). Otherwise Ω comes from polynomials (`PolynomialPlan`), in
    bfloat16 if Γ is large and the machine has fast bfloat16. Ω is made exactly skew, and a last cubic step in the
    caller's precision brings every singular value to at most 1. So the direction is feasible to rounding, whatever the
    accuracy; to half the digits if the gradient is rank-deficient, because `R⁻¹`, or the slope of the rational function,
    amplifies the rounding of G⊥. The gap is bounded without singular values. A deeper plan lowers the floor of the
    polynomials or of the rational function, and finally computes in float64.

    Args:
        tolerance: the largest relative duality gap of a certified direction.
        max_iterations: the number of plans tried; each lowers the floor by the factor by which the gap was too large.
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
    reason = "the steepest direction is −msign(G Wᵀ − W Gᵀ) W, and its gap is known in advance"

    def plan(
        self,
        manifold: Manifold,
        norm: Norm,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device_type: str,
    ) -> Plan:
        if not isinstance(manifold, Stiefel | FixedGram):
            raise UnsupportedPairError(
                "manifold",
                "must be Stiefel or FixedGram for this solver",
                manifold,
                "Use solver='auto'.",
            )
        return _plan(self, manifold, norm.spectral_unit(shape), tuple(shape), dtype, device_type)


@functools.lru_cache(maxsize=1024)
def _plan(
    solver: SkewSign,
    manifold: Stiefel | FixedGram,
    unit: float,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device_type: str,
) -> Plan:
    rows, columns = sorted(shape[-2:], reverse=True)
    on_host, stack = device_type == "cpu", len(shape) > 2
    reduced = rows > 2 * columns and not (on_host and not stack and rows <= UNREDUCED_MAX_ROWS)
    plan = polynomial_plan(solver, manifold, unit, shape, dtype, device_type, reduced=reduced)
    if on_host and not stack and plan.rank <= DECOMPOSE_MAX_RANK:
        return DecomposedPlan(solver.tolerance, manifold, unit, plan)
    by_resolvents = on_host and reduced and columns >= RESOLVENT_MIN_COLUMNS
    if (
        by_resolvents
        and isinstance(manifold, Stiefel)
        and solver.tolerance >= FLOAT32_MIN_TOLERANCE
    ):
        floor = min(solver.tolerance / TOLERANCE_TO_RESOLVENT_FLOOR, RESOLVENT_MAX_FLOOR)
        return ResolventPlan(solver.tolerance, manifold, unit, floor, 1, plan.max_attempts, plan)
    return plan


def polynomial_plan(
    solver: SkewSign,
    manifold: Stiefel | FixedGram,
    unit: float,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device_type: str,
    *,
    reduced: bool,
) -> PolynomialPlan:
    """The plan by polynomials on Γ of 2n×2n if `reduced`, else of m×m."""
    rows, columns = sorted(shape[-2:], reverse=True)
    on_host = device_type == "cpu"
    k = 2 * columns if reduced else rows
    half = (
        dtype is torch.float32
        and solver.tolerance >= BF16_MIN_TOLERANCE
        and k >= BF16_MIN_COLUMNS
        and half_is_fast(device_type)
    )
    promise = promised(solver.tolerance, dtype, half=half)
    large = k >= BF16_MIN_COLUMNS
    double_gram = on_host and reduced and large
    return PolynomialPlan(
        solver.tolerance,
        manifold,
        unit,
        rank=min(rows, 2 * columns),
        columns=k,
        reduced=reduced,
        on_host=on_host,
        dtype=dtype,
        double_gram=double_gram,
        half=half,
        kernels=resolve_on(solver.backend, device_type, dtype) == "triton",
        accuracy=promise.accuracy,
        floor=max(promise.wanted / TOLERANCE_TO_FLOOR, promise.lowest),
        attempt=1,
        max_attempts=max(1, solver.max_iterations),
    )


DECOMPOSE_MAX_RANK = 32
"""The rank of Γ up to which one decomposition costs less than the calls of all the products."""
UNREDUCED_MAX_ROWS = 96
"""The number of rows of W up to which Γ of m×m costs less than the calls that reduce it to 2n×2n."""
TOLERANCE_TO_FLOOR = 5
"""The ratio of the tolerance to the floor of the first plan. It suffices if few singular values are small. If many are,
the gap is too large, and a deeper plan follows: on the CPU in the same step, on an accelerator in a later one."""
BF16_MIN_COLUMNS = 512
"""The number of columns of Γ from which on bfloat16 is faster, if the machine has hardware for it."""
BF16_MIN_TOLERANCE = 1e-2
"""The smallest tolerance of the relative gap that bfloat16 reaches."""
RESOLVENT_MIN_COLUMNS = 128
"""The number of columns of W from which on inverses cost less than polynomials."""
RESOLVENT_MAX_FLOOR = 0.1
"""The highest floor of a plan by inverses, however large the tolerance is."""
