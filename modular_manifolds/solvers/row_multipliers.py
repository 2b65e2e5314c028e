"""A solver for rows on spheres with the spectral norm: one multiplier for each row, found by a fixed point."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX, exceeds_rounding, inner, normalise
from modular_manifolds.linalg.matrix_sign import msign
from modular_manifolds.linalg.msign_gap import nuclear_bounds
from modular_manifolds.linalg.products import gram_product, multiply
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.mixing import Mixing
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.solution import Solution, relative_gap


@dataclass(frozen=True)
class RowMultipliers(Solver):
    """A solver of `min <G, A>` subject to `‖A‖₂ ≤ 1` and `<n_i, a_i> = 0` for every row, n_i the unit row of W.

    Let T be the tangent part of G at unit Frobenius norm, N the rows n_i, and `X(λ) = T − diag(λ) N`. The dual is
    `min over λ of φ(λ) = ‖X(λ)‖_nuc`, convex, with slope `−diag(A Nᵀ)` for `A = msign(X)`. On rows of mean zero T and N have mean
    zero, and so has A.

    φ is made smooth: `φ_ε = tr (XᵀX + ε²)^{1/2}`, with `A = X P`, `P = (XᵀX + ε²)^{-1/2}`. A is a contraction, and tangent at the
    minimum: there its gap is at most the fraction of ε in the mean singular value. For a fixed P, φ_ε lies below a parabola in
    each row, which touches it: `λ_i ← λ_i + <n_i, a_i>/(n_i P n_iᵀ)` never raises φ_ε. If W is wide, the parabola with
    `Q = (XXᵀ + ε²)^{-1/2}` on the other side is closer: `λ ← λ + (Q ∘ N Nᵀ)⁻¹ diag(A Nᵀ)`. `Mixing` speeds both up. ε follows
    the gap.

    Each round makes A tangent and divides it by a bound on its norm. The best of these is the direction, and its gap to the
    lowest φ the certificate. The dual of a solution is λ, shape (*batch, m, 1), for a warm start.

    One matrix of at most 128 rows or columns on a CPU is decomposed in float64. Otherwise each round is an msign by matrix
    products, of X above εI, which gives A above εP; the number of rounds is fixed.

    Args:
        tolerance: the largest relative duality gap of a certified direction.
        max_iterations: the largest number of decompositions.

    Source: the parabola is that of iteratively reweighted least squares, I. Daubechies, R. DeVore, M. Fornasier, C. S.
    Güntürk (2010), with weights for matrices as in K. Mohan, M. Fazel (2012).
    """

    tolerance: float = 1e-2
    max_iterations: int = 300

    name = "row-multipliers"
    reason = "one multiplier is left for each row, the minimum of a convex function"

    def dual_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], 1)

    def plan(
        self,
        manifold: Manifold,
        norm: Norm,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device_type: str,
    ) -> Plan:
        del dtype
        length, dual_shape = norm.spectral_unit(shape), self.dual_shape(shape)
        if device_type == "cpu" and min(shape[-2:]) <= DECOMPOSE_MAX_SIDE:
            return RowsByDecompositions(
                self.tolerance, manifold, length, dual_shape, self.max_iterations
            )
        return RowsByProducts(max(self.tolerance, RowsByProducts.REACHED), manifold, length, dual_shape)


DECOMPOSE_MAX_SIDE = 128
"""The smaller side up to which decompositions cost less than the calls of all the products."""


class Smoothed(NamedTuple):
    """φ and the slope of φ_ε at one λ.

    Args:
        nuclear: at least `‖X‖_nuc`, shape (*batch, 1, 1), in float64.
        sign: A, shape (*batch, m, n).
        longest: a bound on `‖A‖₂`.
        metric: P if W is tall, Q if it is wide.
    """

    nuclear: Tensor
    sign: Tensor
    longest: float
    metric: Tensor


@dataclass(frozen=True)
class RowsPlan(Plan):
    """The rounds of `RowMultipliers`.

    Args:
        manifold: gives the rows.
        length: the spectral norm of the direction.
        shape_of_dual: the shape of λ.
    """

    manifold: Manifold
    length: float
    shape_of_dual: tuple[int, ...]

    gap_dtype = torch.float64

    @property
    def dual_shape(self) -> tuple[int, ...]:
        return self.shape_of_dual

    @abstractmethod
    def _smoothed(self, x: Tensor, epsilon: Tensor) -> Smoothed: ...

    def _rounds(
        self, point: Tensor, gradient: Tensor, dual: Tensor | None, rounds: int, *, may_stop: bool
    ) -> Solution:
        tangent, normal, has_tangent_part = self._problem(point, gradient)
        multipliers = torch.zeros_like(tangent[..., :1]) if dual is None else dual.to(tangent.dtype)
        best = has_tangent_part.double() * min(point.shape[-2:]) ** 0.5
        descent, direction = torch.zeros_like(best), torch.zeros_like(tangent)
        gap, mixing, done = torch.ones_like(best), Mixing(), 0
        while done < rounds:
            wanted = gap.clamp(self.tolerance or 0.0, FIRST_GAP) * SMOOTH_SHARE
            epsilon = wanted * best / min(point.shape[-2:])
            found = self._smoothed(
                tangent - multipliers * normal, epsilon.clamp_min(1e-30).to(tangent.dtype)
            )
            free = self.manifold.tangent(normal * self._radius, found.sign)
            off = gram_product(found.sign - free)
            longest = found.longest + torch.linalg.vector_norm(off, dim=MATRIX, keepdim=True).sqrt()
            a = free / longest.clamp_min(1.0)
            down = inner(tangent, a).double()
            better = (down > descent) | down.isnan()
            direction = torch.where(better, a, direction)
            descent = torch.where(better, down, descent)
            best = torch.where(found.nuclear < best, found.nuclear, best)
            gap = (1 - descent / best.clamp_min(1e-300)).clamp(0.0, 1.0)
            done += 1
            if may_stop and float(gap.where(has_tangent_part, 0.0).max()) <= (self.tolerance or 0.0):
                break
            multipliers = mixing.next(multipliers, *_parabola(normal, found))
        direction = torch.where(has_tangent_part, -self.length * direction, 0.0)
        gap = relative_gap(descent, best)
        return Solution(
            direction.to(gradient.dtype), gap, done, self.tolerance, multipliers.double()
        )

    @property
    def _radius(self) -> float:
        return getattr(self.manifold, "radius", 1.0)

    def _problem(self, point: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """T, N, and whether T is more than rounding."""
        normal = self.manifold.project(point) / self._radius
        tangent = self.manifold.tangent(point, normalise(gradient, dim=MATRIX))
        has_tangent_part = exceeds_rounding(tangent, dim=MATRIX)
        tangent = normalise(torch.where(has_tangent_part, tangent, 0.0), dim=MATRIX)
        # After the division by a small length, the rounding of the first projection can be as long as the tangent part.
        tangent = normalise(self.manifold.tangent(point, tangent), dim=MATRIX)
        return tangent, normal, has_tangent_part


FIRST_GAP = 1e-2
"""The largest gap that ε follows."""
SMOOTH_SHARE = 1.0
"""ε over the gap and the mean singular value."""


def _parabola(normal: Tensor, found: Smoothed) -> tuple[Tensor, Tensor]:
    """The step to the lowest point of the parabola, and its curvature along each multiplier; shape (*batch, m, 1)."""
    slope = (found.sign * normal).sum(dim=-1, keepdim=True)
    if normal.shape[-2] >= normal.shape[-1]:
        curvature = (multiply(normal, found.metric) * normal).sum(dim=-1, keepdim=True)
        return slope / curvature.clamp_min(1e-30), curvature
    hessian = found.metric * multiply(normal, normal.mT)
    curvature = hessian.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    shift = 8 * torch.finfo(hessian.dtype).eps * curvature.sum(dim=-2, keepdim=True)
    hessian.diagonal(dim1=-2, dim2=-1).add_(shift.squeeze(-1))
    factor, _ = torch.linalg.cholesky_ex(hessian, upper=True)
    half = torch.linalg.solve_triangular(factor.mT, slope, upper=False)
    return torch.linalg.solve_triangular(factor, half, upper=True), curvature


@dataclass(frozen=True)
class RowsByDecompositions(RowsPlan):
    """A plan for small matrices on the CPU: decompositions in float64 until the gap is within the tolerance.

    Args:
        max_iterations: the largest number of decompositions.
    """

    max_iterations: int

    decides_on_host = True

    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        found = self._rounds(
            point.double(), gradient.double(), dual, self.max_iterations, may_stop=True
        )
        return replace(found, direction=found.direction.to(gradient.dtype))

    def _smoothed(self, x: Tensor, epsilon: Tensor) -> Smoothed:
        u, sigma, vh = torch.linalg.svd(x, full_matrices=False)
        root = (sigma.square() + epsilon.squeeze(-1).square()).rsqrt().unsqueeze(-2)
        sign = (u * (sigma.unsqueeze(-2) * root)) @ vh
        metric = (u * root) @ u.mT if x.shape[-2] < x.shape[-1] else (vh.mT * root) @ vh
        return Smoothed(sigma.sum(dim=-1)[..., None, None], sign, 1.0, metric)

    def __str__(self) -> str:
        return (
            f"it decomposes X in float64, {self.max_iterations} times at most, until the gap is {self.tolerance:g}"
        )


@dataclass(frozen=True)
class RowsByProducts(RowsPlan):
    """A plan for accelerators and large matrices: a fixed number of rounds, each an `msign` by polynomials.

    Nothing is read on the host.

    Args:
        rounds: the number of values of λ that are tried.
        accuracy: the arguments of the msign.
        floor: as `accuracy`.
    """

    rounds: int = 6
    accuracy: float = 1e-3
    floor: float = 1e-3

    decides_on_host = True
    REACHED: ClassVar[float] = 2e-2
    """The relative gap that six rounds reach from a warm start, if W is not square; a square one needs a deeper plan at times."""

    def solve(self, point: Tensor, gradient: Tensor, dual: Tensor | None = None) -> Solution:
        return self._rounds(point, gradient, dual, self.rounds, may_stop=False)

    def _smoothed(self, x: Tensor, epsilon: Tensor) -> Smoothed:
        wide = x.shape[-2] < x.shape[-1]
        tall, columns = (x.mT if wide else x), min(x.shape[-2:])
        eye = torch.eye(columns, dtype=x.dtype, device=x.device) * epsilon
        above = torch.cat((tall, eye.expand(*tall.shape[:-2], columns, columns)), dim=-2)
        sign = msign(above, accuracy=self.accuracy, floor=self.floor)
        size = torch.linalg.vector_norm(above, dim=MATRIX)
        _, nuclear = nuclear_bounds(above, sign, size=size, accuracy=self.accuracy, floor=self.floor)
        top, below = sign.split((tall.shape[-2], columns), dim=-2)
        metric = (below + below.mT) / (2 * epsilon)
        return Smoothed(
            nuclear.unsqueeze(-1).unsqueeze(-1), top.mT if wide else top, 1 + self.accuracy, metric
        )

    def deeper(self, gap: float | None = None) -> Plan | None:
        """A plan with twice the rounds and a finer msign."""
        del gap
        finer = replace(self, rounds=14, accuracy=1e-4, floor=1e-4)
        return None if finer == self else finer

    def __str__(self) -> str:
        return f"it takes {self.rounds} rounds, each an msign by polynomials in the dtype of the weight, to within {self.accuracy:g}"
