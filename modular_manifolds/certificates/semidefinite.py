"""A Lipschitz bound on a region by a semidefinite program: a solver proposes multipliers, and float64 checks them."""

from __future__ import annotations

import math
import warnings
from types import ModuleType

import torch
from torch import Tensor

from modular_manifolds.certificates.relu_chain import EPS, Region
from modular_manifolds.errors import ArgumentError

INTERIOR_POINT_MAX_SIZE = 80
"""Up to this size of the matrix an interior point method is faster."""
MULTIPLIER_INCREASES_RELATIVE = (0.0, 1e-6, 1e-4, 1e-2, 1e-1)
"""Relative increases of the multipliers, tried because a solver's result may miss the constraint by its tolerance."""


def multipliers(region: Region) -> tuple[Tensor, bool] | None:
    """Weights `t ≥ 0` of the undecided units that make `checked_bound` small; None if the solver has none.

    Minimise ρ subject to `M(ρ, t) ⪰ 0` of `constraint_matrix`: the program LipSDP-Neuron, with one multiplier for each
    unit. The second result tells whether the solver reached its tolerance.

    Raises:
        ArgumentError: cvxpy cannot be imported.

    Source: M. Fazlyab, A. Robey, H. Hassani, M. Morari, G. Pappas, "Efficient and accurate estimation of
    Lipschitz constants for deep neural networks" (2019), theorem 2. Their LipSDP-Network, with
    multipliers for pairs of units, is refuted in P. Pauli et al., "Training robust neural networks
    using Lipschitz bounds" (2022), and not used.
    """
    cp = _cvxpy()
    n, u = region.inputs, region.undecided
    rows = torch.cat((region.output[:, :n], region.preactivation[:, :n]))
    # Reduce Δx to the span of the rows: an orthonormal basis of it.
    basis = (
        torch.linalg.qr(rows.mT)[0]
        if len(rows) < n
        else torch.eye(n, dtype=torch.float64, device="cpu")
    )
    inside = torch.block_diag(basis, torch.eye(u, dtype=torch.float64, device="cpu"))
    F = (region.output @ inside / region.slope).numpy()
    C = (region.preactivation @ inside).numpy()
    k = basis.shape[1]
    U = inside.new_zeros(u, k + u)
    U[:, k:] = torch.eye(u, device="cpu")
    E = inside.new_zeros(k + u, k + u)
    E[:k, :k] = torch.eye(k, device="cpu")
    t, rho = cp.Variable(u, nonneg=True), cp.Variable()
    cross = U.mT.numpy() @ cp.diag(t) @ C
    M = rho * E.numpy() - F.T @ F - cross - cross.T + 2 * U.mT.numpy() @ cp.diag(t) @ U.numpy()
    problem = cp.Problem(cp.Minimize(rho), [M >> 0])
    solver = cp.CLARABEL if k + u <= INTERIOR_POINT_MAX_SIZE else cp.SCS
    with warnings.catch_warnings():
        # An inaccurate solution has a status here, and is checked as well.
        warnings.simplefilter("ignore", UserWarning)
        try:
            problem.solve(solver=solver)
        except cp.error.SolverError:
            return None
    if t.value is None:
        return None
    t_value = torch.as_tensor(t.value, dtype=torch.float64, device="cpu").clamp_min(0)
    return t_value, problem.status == cp.OPTIMAL


def checked_bound(region: Region, t: Tensor) -> float:
    """The Lipschitz bound that any `t ≥ 0` proves: the smallest over a few multiples of t."""
    return min(_bound(region, t * (1 + each)) for each in MULTIPLIER_INCREASES_RELATIVE)


def constraint_matrix(region: Region, rho: float, t: Tensor) -> Tensor:
    """`M = ρ EᵀE − FᵀF − UᵀTC − CᵀTU + 2 UᵀTU`, F over the slope bound; E selects Δx of ξ, and U selects u.

    `ξᵀMξ = ρ‖Δx‖² − ‖FΔ‖² − 2 Σ t_i u_i (c_i ξ − u_i)`, and each `u_i (c_i ξ − u_i) ≥ 0`, as u_i lies between
    0 and `c_i ξ`. So if `M ⪰ 0`, the output changes by at most `√ρ ‖Δx‖`, times that slope bound.
    """
    n = region.inputs
    F = region.output / region.slope
    M = -F.mT @ F
    weighted = t.unsqueeze(1) * region.preactivation
    M[n:] -= weighted
    M[:, n:] -= weighted.mT
    M.diagonal()[:n] += rho
    M.diagonal()[n:] += 2 * t
    return M


def _bound(region: Region, t: Tensor) -> float:
    """A valid bound from the smallest ρ that these multipliers allow, by the Schur complement.

    The computed ρ has rounding errors, so only `M ⪰ −δ` is proved. With `‖u‖ ≤ G ‖Δx‖` from certified norms,
    `‖F ξ‖² ≤ ρ‖Δx‖² + δ‖ξ‖² ≤ (ρ + δ(1 + G²)) ‖Δx‖²`.
    """
    n = region.inputs
    M = constraint_matrix(region, 0.0, t)
    factor, failed = torch.linalg.cholesky_ex(M[n:, n:])
    if int(failed):
        return math.inf
    half = torch.linalg.solve_triangular(factor, M[n:, :n], upper=False)
    rho = float(torch.linalg.eigvalsh(half.mT @ half - M[:n, :n]).amax())
    rho = max(rho, 0.0) * (1 + 1e-12)
    M = constraint_matrix(region, rho, t)
    size = float(torch.linalg.matrix_norm(M)) * (1 + M.numel() * EPS)
    lowest = float(torch.linalg.eigvalsh(M).amin()) - 8 * len(M) * EPS * size
    missing = (max(-lowest, 0.0) + _rounding(region, t, size)) * (1 + 8 * EPS)
    square = rho + missing * (1 + region.undecided_gain**2)
    return math.sqrt(square) * region.slope * (1 + 16 * EPS)


def _rounding(region: Region, t: Tensor, size: float) -> float:
    """A bound on the rounding error of M in the Frobenius norm.

    F and C have known errors; the product `FᵀF` rounds by `γ ‖F‖_F²`; every entry needs at most four more sums and a
    product, each with a relative error of one of its terms.
    """
    slope, out = region.slope, len(region.output)
    F = float(torch.linalg.matrix_norm(region.output)) / slope * (1 + region.output.numel() * EPS)
    F_error = region.output_error / slope + 2 * EPS * F
    gamma = out * EPS / (1 - out * EPS)
    C = float(torch.linalg.matrix_norm(region.preactivation)) * (
        1 + region.preactivation.numel() * EPS
    )
    largest = float(t.amax())
    terms = F**2 + 2 * largest * C + 2 * largest * math.sqrt(len(t)) + size
    products = gamma * F**2 + F_error * (2 * F + F_error) + 2 * largest * region.preactivation_error
    return (products + 8 * EPS * terms) * (1 + 64 * EPS)


def _cvxpy() -> ModuleType:
    try:
        import cvxpy
    except ImportError as error:
        raise ArgumentError(
            "local_lipschitz",
            "needs the library cvxpy if units are undecided within the radius",
            " ".join(str(error).split())[:120],
            "Run: pip install 'modular-manifolds[local]', or take a smaller radius.",
        ) from None
    return cvxpy
