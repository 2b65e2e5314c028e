"""Every solver obeys the laws, agrees with a convex solver that knows none of our formulas, and says how sure it is."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from itertools import pairwise
from typing import Any

import cases
import cvxpy as cp
import numpy as np
import pytest
import torch
from modular_manifolds_bench.baselines import ADMM, SPEL, DualAscent, Lyapunov, LyapunovProducts
from modular_manifolds_bench.baselines.completion import complete, direction
from modular_manifolds_bench.baselines.stiefel_dual import StiefelDual, skew
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, ShapeError, UnsupportedPairError
from modular_manifolds.linalg.matrices import normalise
from modular_manifolds.linalg.symmetric import gram, sym
from modular_manifolds.solvers import TABLE, SkewSign, Solver, find_pair, find_solver, select
from modular_manifolds.solvers.solution import Solution, Status
from modular_manifolds.testing import SCALE_FREE, SOLVER_LAWS, Sample, check_solver

CASES = list(cases.solver_cases())


def remembering(solver: Solver) -> Solver:
    """The solver, asked only once for each gradient: most laws look at the same solutions.

    It keeps its class, which laws look at too. It gives away copies.
    """
    asked_once = copy.copy(solver)
    known: dict[tuple[bytes, ...], Solution] = {}

    def solve(
        manifold: mm.Manifold,
        norm: mm.Norm,
        point: Tensor,
        gradient: Tensor,
        dual: Tensor | None,
    ) -> Solution:
        given = [x for x in (point, gradient, dual) if x is not None]
        asked = tuple(f"{tuple(x.shape)}".encode() + x.numpy().tobytes() for x in given)
        if asked not in known:
            known[asked] = solver.solve(manifold, norm, point, gradient, dual)
        return copied(known[asked])

    object.__setattr__(asked_once, "solve", solve)
    return asked_once


def copied(found: Solution) -> Solution:
    dual = None if found.dual is None else found.dual.clone()
    return dataclasses.replace(
        found, direction=found.direction.clone(), gap=found.gap.clone(), dual=dual
    )


@pytest.mark.parametrize("case", CASES, ids=cases.name)
def test_laws(case: cases.SolverCase) -> None:
    for shape, dtype in case.rooms:
        solver, sample = remembering(case.solver), case.sample(shape, dtype)
        for law in SOLVER_LAWS:
            if case.scale_free or law is not SCALE_FREE:
                # What a solver does to its arguments shows when it solves.
                watched = law.__name__ == "arguments_are_not_written_into"
                with cases.Trying(law, shape, dtype):
                    law(case.solver if watched else solver, case.manifold, case.norm, sample)


@dataclasses.dataclass(frozen=True)
class Broken(Solver):
    """Hyperspherical descent, with one fault."""

    fault: str = "none"
    name = "broken"
    reason = "it is a test"

    def solve(
        self,
        manifold: mm.Manifold,
        norm: mm.Norm,
        point: Tensor,
        gradient: Tensor,
        dual: Tensor | None,
    ) -> Solution:
        del norm, dual
        flat = (-2, -1)
        scaled = normalise(gradient, dim=flat)
        a = manifold.tangent(point, scaled)
        size = torch.linalg.matrix_norm(a, keepdim=True)
        a = torch.where(size <= 1e-6, 0.0, -a / size.clamp_min(1e-6))
        gap = torch.zeros(a.shape[:-2], dtype=a.dtype)
        match self.fault:
            case "not tangent":
                a = -scaled
            case "too long":
                a = 1.1 * a
            case "not steepest":
                a = 0.9 * a
            case "not steepest, and says how much":
                a, gap = 0.9 * a, torch.where(size[..., 0, 0] > 0, 0.1 + 1e-12, 0.0)
            case "gap too small":
                a, gap = 0.9 * a, gap + 0.05
            case "negative gap":
                gap = gap - 0.1
            case "noise at full length":
                a = -normalise(manifold.tangent(point, scaled), dim=flat)
            case "an epsilon":
                a = -manifold.tangent(point, gradient)
                a = a / (torch.linalg.matrix_norm(a, keepdim=True) + 1e-14)
            case "writes":
                gradient.mul_(1.0)
            case "norm of the stack" if a.dim() > 2:
                a = a / torch.linalg.vector_norm(a)
            case "zero of the stack" if bool((size == 0).any()):
                a = torch.zeros_like(a)
        return Solution(a, gap, tolerance=1e-6)


FAULTS = {
    "not tangent": "the direction is tangent",
    "too long": "length of the direction",
    "not steepest": "as steep as others",
    "gap too small": "as steep as others",
    "negative gap": "gap and status",
    "noise at full length": "is tangent|without a tangent part",
    "an epsilon": "times as large",
    "writes": "written into",
    "norm of the stack": "one by one",
    "zero of the stack": "one by one",
}


@pytest.mark.parametrize("fault", ["none", "not steepest, and says how much"])
def test_a_solver_without_fault_passes(fault: str) -> None:
    check_solver(Broken(fault=fault), mm.Sphere(2.0), mm.Frobenius(), Sample((5, 4)))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_laws_find_faults(fault: str) -> None:
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        check_solver(Broken(fault=fault), mm.Sphere(2.0), mm.Frobenius(), Sample((5, 4)))


# The problem as it stands in MATH: no dual, no reduction, no formula of ours.


def length_of(norm: mm.Norm, a: Any) -> Any:
    """The norm as the convex solver writes it."""
    m, n = a.shape
    match norm:
        case mm.Frobenius():
            return cp.norm(a, "fro")
        case mm.Max():
            return cp.max(cp.abs(a))
        case mm.Spectral():
            return cp.sigma_max(a)
        case mm.RMSOperator():
            return math.sqrt(n / m) * cp.sigma_max(a)
        case mm.RowRMS():
            return cp.max(cp.norm(a, 2, axis=1)) / math.sqrt(n)
        case _:
            raise AssertionError(f"write {norm} down here for the convex solver")


def off_tangent(manifold: mm.Manifold, w: np.ndarray, a: np.ndarray) -> np.ndarray:
    """The derivative of the manifold's equation along A: linear in A, and zero for a tangent A."""
    match manifold:
        case mm.Euclidean():
            return np.zeros(1)
        case mm.Sphere():
            return (w * a).sum(keepdims=True)
        case mm.Oblique():
            return (w * a).sum(axis=1)
        case mm.BalancedRows():
            return np.concatenate([(w * a).sum(axis=1), a.sum(axis=1)])
        case mm.SpectralBall():
            return np.zeros(1)
        case mm.SpectralSphere():
            u, _, vh = np.linalg.svd(w)
            return u[:, :1].T @ a @ vh[:1].T
        case mm.Stiefel():
            tall = w.shape[0] >= w.shape[1]
            return w.T @ a + a.T @ w if tall else w @ a.T + a @ w.T
        case _:
            raise AssertionError(f"write the equation of {manifold} down here")


def tangent_basis(manifold: mm.Manifold, w: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span the tangent space at W, flattened; found by elimination alone."""
    units = np.eye(w.size).reshape(-1, *w.shape)
    equations = np.stack([off_tangent(manifold, w, unit).ravel() for unit in units], axis=1)
    _, sigma, vh = np.linalg.svd(equations)
    return vh[int((sigma > 1e-10).sum()) :].T


def steepest_descent_possible(manifold: mm.Manifold, norm: mm.Norm, w: Tensor, g: Tensor) -> float:
    """`max −<G, A>` subject to `‖A‖ ≤ 1` and A tangent, by an interior-point method.

    The equations of the tangent space are eliminated beforehand: many of them say the same, which an
    interior-point method answers with a warning.
    """
    m, n = w.shape
    basis = tangent_basis(manifold, w.numpy())
    x = cp.Variable(basis.shape[1])
    a = cp.reshape(basis @ x, (m, n), order="C")
    problem = cp.Problem(cp.Maximize(-(g.numpy().ravel() @ basis) @ x), [length_of(norm, a) <= 1])
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL, problem.status
    assert isinstance(problem.value, float)
    return problem.value


def problem_of(
    manifold: mm.Manifold, shape: tuple[int, int], seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    w = manifold.random(shape, generator=generator, dtype=torch.float64)
    return w, torch.randn(shape, generator=generator, dtype=torch.float64)


def descent(g: Tensor, solution: Solution) -> float:
    return -float((g * solution.direction).sum())


AGREES = 1e-5
"""The relative difference allowed between our objective and the convex solver's."""

CONVEX = 1e-7
"""Clarabel stops at a relative gap of 1e-8."""

SMALL = [(6, 3), (4, 4), (3, 5)]

ITERATIVE = (Lyapunov, LyapunovProducts, SkewSign, DualAscent, ADMM, SPEL)
"""Solvers that stop at a tolerance or at a count, and are held to their certificate."""


@pytest.mark.parametrize("shape", SMALL, ids=cases.name)
@pytest.mark.parametrize(
    "case", [c for c in CASES if not isinstance(c.solver, ITERATIVE)], ids=cases.name
)
def test_closed_forms_agree_with_a_convex_solver(
    case: cases.SolverCase, shape: tuple[int, int]
) -> None:
    w, g = problem_of(case.manifold, shape)
    found = mm.steepest(case.manifold, case.norm, w, g, solver=case.solver)
    best = steepest_descent_possible(case.manifold, case.norm, w, g)
    # A direction by msign may be too long, or short of the best, by msign's own accuracy.
    assert descent(g, found) == pytest.approx(best, rel=AGREES + case.accuracy)


@pytest.mark.parametrize("shape", SMALL, ids=cases.name)
@pytest.mark.parametrize(
    ("norm", "unit"), [(mm.Spectral(), 0.0), (mm.RMSOperator(), 0.5)], ids=cases.name
)
def test_muon_is_exact_when_msign_is(norm: mm.Norm, unit: float, shape: tuple[int, int]) -> None:
    """`−(out/in)^unit msign(G)` is the answer; the default direction is it to msign's accuracy."""
    w, g = problem_of(mm.Euclidean(), shape)
    direction = -((shape[0] / shape[1]) ** unit) * mm.msign(g, accuracy=1e-9)
    best = steepest_descent_possible(mm.Euclidean(), norm, w, g)
    assert -float((g * direction).sum()) == pytest.approx(best, rel=AGREES)
    torch.testing.assert_close(norm.steepest(g), direction, atol=2e-3, rtol=0)


STIEFEL = [(mm.Stiefel(), mm.Spectral()), (mm.Stiefel(radius=1.7), mm.RMSOperator())]


def stiefel_gradient(w: Tensor, g: Tensor, kind: str) -> Tensor:
    if kind == "rank-one":
        return g[:, :1] @ g[:1]
    if kind == "nearly normal":
        return w @ sym(w.mT @ g) + 0.05 * g if w.shape[0] >= w.shape[1] else w + 0.05 * g
    return g


@pytest.mark.parametrize(
    ("manifold", "norm", "kind"),
    [
        (*STIEFEL[0], "gaussian"),
        (*STIEFEL[0], "rank-one"),
        (*STIEFEL[0], "nearly normal"),
        (*STIEFEL[1], "gaussian"),
    ],
    ids=cases.name,
)
@pytest.mark.parametrize("shape", [*SMALL, (5, 4), (2, 1)], ids=cases.name)
def test_the_fixed_point_agrees_with_a_convex_solver(
    manifold: mm.Manifold, norm: mm.Norm, shape: tuple[int, int], kind: str
) -> None:
    """Its gap is a certificate at every number of rounds, and it goes to the optimum."""
    w, g = problem_of(manifold, shape)
    g = stiefel_gradient(w, g, kind)
    best = steepest_descent_possible(manifold, norm, w, g)
    for rounds in (0, 1, 3, 30):
        found = mm.steepest(
            manifold, norm, w, g, solver=Lyapunov(tolerance=0.0, max_iterations=rounds)
        )
        certified(best, g, found)
    tight = Lyapunov(tolerance=1e-7, max_iterations=5000)
    found = mm.steepest(manifold, norm, w, g, solver=tight)
    certified(best, g, found)
    assert descent(g, found) == pytest.approx(best, rel=max(AGREES, float(found.gap)))


@pytest.mark.parametrize(("manifold", "norm"), STIEFEL, ids=cases.name)
@pytest.mark.parametrize("shape", SMALL, ids=cases.name)
def test_the_products_alone_are_certified_too(
    manifold: mm.Manifold, norm: mm.Norm, shape: tuple[int, int]
) -> None:
    w, g = problem_of(manifold, shape)
    best = steepest_descent_possible(manifold, norm, w, g)
    for rounds in (1, 3, 30):
        solver = LyapunovProducts(max_iterations=rounds)
        certified(best, g, mm.steepest(manifold, norm, w, g, solver=solver))


@pytest.mark.parametrize("shape", SMALL, ids=cases.name)
@pytest.mark.parametrize(("manifold", "norm"), STIEFEL, ids=cases.name)
@pytest.mark.parametrize(
    "solver",
    [DualAscent(), DualAscent(steps=3), DualAscent(precision="input", step_size=0.1, steps=400)],
    ids=["seed", "three steps", "longer"],
)
def test_the_gap_of_dual_ascent_is_a_certificate(
    solver: DualAscent, manifold: mm.Manifold, norm: mm.Norm, shape: tuple[int, int]
) -> None:
    w, g = problem_of(manifold, shape)
    best = steepest_descent_possible(manifold, norm, w, g)
    found = mm.steepest(manifold, norm, w, g, solver=solver)
    certified(best, g, found)
    # It is no empty certificate: a hundred steps of the seed's size come within three tenths on any such problem.
    if solver.steps >= 100:
        assert float(found.gap) <= 0.3


@pytest.mark.parametrize("shape", [*SMALL, (5, 4)], ids=cases.name)
@pytest.mark.parametrize(
    ("manifold", "norm", "kind"),
    [(*STIEFEL[0], "gaussian"), (*STIEFEL[0], "rank-one"), (*STIEFEL[1], "nearly normal")],
    ids=cases.name,
)
@pytest.mark.parametrize(
    "solver",
    [ADMM(), ADMM(steps=0), ADMM(rho=10.0, normalise=True), SPEL(), SPEL(accuracy=0.3)],
    ids=["admm", "no step", "normalised", "spel", "rough msign"],
)
def test_the_gap_of_a_baseline_is_a_certificate(
    solver: Solver, manifold: mm.Manifold, norm: mm.Norm, kind: str, shape: tuple[int, int]
) -> None:
    w, g = problem_of(manifold, shape)
    g = stiefel_gradient(w, g, kind)
    found = mm.steepest(manifold, norm, w, g, solver=solver)
    certified(steepest_descent_possible(manifold, norm, w, g), g, found)
    assert found.status is Status.NOT_CERTIFIED
    assert found.tolerance is None


@pytest.mark.parametrize("shape", [*SMALL, (5, 4)], ids=cases.name)
def test_admm_goes_to_the_optimum(shape: tuple[int, int]) -> None:
    """Its multiplier always does; its direction, an msign, where the optimal `G + 2WΛ` has full rank."""
    stiefel, spectral = mm.Stiefel(), mm.Spectral()
    w, g = problem_of(stiefel, shape)
    best = steepest_descent_possible(stiefel, spectral, w, g)
    found = mm.steepest(stiefel, spectral, w, g, solver=ADMM(steps=3000))
    certified(best, g, found)
    assert found.dual is not None
    objective = float(StiefelDual.of(stiefel, spectral, w, g).objective(found.dual))
    assert objective * float(torch.linalg.matrix_norm(g)) == pytest.approx(best, rel=1e-4)
    if shape in ((6, 3), (4, 4)):
        assert float(found.gap) <= 1e-4
    else:
        assert float(found.gap) > 1e-4


def certified(best: float, g: Tensor, found: Solution) -> None:
    """The true shortfall is not negative, and never more than the gap, to the convex solver's accuracy."""
    shortfall = 1 - descent(g, found) / best
    assert -CONVEX <= shortfall <= float(found.gap) + CONVEX


# MATH section 2, line by line.


@pytest.mark.parametrize("shape", [(6, 3), (4, 4), (3, 5), (2, 3, 7, 4)], ids=cases.name)
def test_everything_happens_in_n_by_n(shape: tuple[int, ...]) -> None:
    """`‖G + 2WΛ‖_nuc = tr M(S)^{1/2}` with `M = (K+S)ᵀ(K+S) + E` for any symmetric Λ."""
    stiefel = mm.Stiefel()
    w, g = stiefel.random(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    problem = StiefelDual.of(stiefel, mm.Spectral(), w, g)
    tall_w, tall_g = (w, g) if shape[-2] >= shape[-1] else (w.mT, g.mT)
    tall_g = normalise(tall_g, dim=(-2, -1))
    c = tall_w.mT @ tall_g
    torch.testing.assert_close(problem.k, skew(c))
    torch.testing.assert_close(problem.e, gram(tall_g) - c.mT @ c)
    multiplier = sym(torch.randn_like(problem.k))
    nuclear = torch.linalg.svdvals(tall_g + 2 * tall_w @ multiplier).sum(dim=-1)
    torch.testing.assert_close(problem.objective(multiplier)[..., 0, 0], nuclear)


@pytest.mark.parametrize("shape", [(6, 3), (5, 4), (3, 5), (40, 20)], ids=cases.name)
def test_the_dual_objective_falls_every_round(shape: tuple[int, int]) -> None:
    stiefel, spectral = mm.Stiefel(), mm.Spectral()
    w, g = problem_of(stiefel, shape)
    problem = StiefelDual.of(stiefel, spectral, w, g)
    objectives, gaps = [], []
    for rounds in (1, 2, 3, 5, 10, 30, 100):
        found = mm.steepest(
            stiefel, spectral, w, g, solver=Lyapunov(tolerance=0.0, max_iterations=rounds)
        )
        assert found.dual is not None
        assert found.iterations <= rounds
        objectives.append(float(problem.objective(found.dual)))
        gaps.append(float(found.gap))
    falls = np.diff(objectives)
    # What is bounded falls every round; the objective lies below its bound, by less and less.
    assert bool((falls <= 1e-8).all()), falls
    assert falls[0] < 0
    # The gap falls with it: each is at most the one before, but for the completion's own error.
    assert all(after <= 1.2 * before + 1e-8 for before, after in pairwise(gaps)), gaps
    # How fast depends on the problem: at least by half in a hundred rounds.
    assert gaps[-1] <= 0.5 * gaps[0]


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=cases.name)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
def test_a_square_weight_needs_no_round(n: int, dtype: torch.dtype) -> None:
    """`E = 0` and `S = 0` is optimal: `A = −W msign(K)`."""
    stiefel = mm.Stiefel()
    w = stiefel.random((n, n), dtype=dtype)
    g = torch.randn(n, n, dtype=dtype)
    tight = SkewSign(tolerance=1e-10 if dtype == torch.float64 else 1e-6)
    found = mm.steepest(stiefel, mm.Spectral(), w, g, solver=tight)
    assert found.status is Status.CONVERGED
    k = skew(w.double().mT @ g.double())
    u, sigma, vh = torch.linalg.svd(k)
    # A skew matrix of odd size has a zero singular value, which msign drops.
    expected = -(w.double() @ (u * (sigma > 1e-6 * sigma.max()) @ vh)) if n > 1 else 0 * w.double()
    along = -float((g.double() * found.direction.double()).sum())
    assert along == pytest.approx(float(-(g.double() * expected).sum()), rel=1e-5, abs=1e-12)
    if n % 2 == 0:
        torch.testing.assert_close(found.direction.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(6, 3), (4, 4)], ids=cases.name)
def test_the_retraction_is_almost_free(shape: tuple[int, int]) -> None:
    """If A is tangent and `AᵀA = I`, then `(W + ηA)ᵀ(W + ηA) = (1 + η²) I`."""
    stiefel, n = mm.Stiefel(), shape[1]
    w = stiefel.random(shape, dtype=torch.float64)
    if shape[0] == n:
        quarter_turns = torch.block_diag(*[torch.tensor([[0.0, -1.0], [1.0, 0.0]])] * (n // 2))
        a = w @ quarter_turns.double()
    else:
        a = torch.linalg.svd(w, full_matrices=True)[0][:, n : 2 * n]
    eye = torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(stiefel.tangent(w, a), a)
    for eta in (1e-3, 0.3, 2.0):
        torch.testing.assert_close(gram(w + eta * a), (1 + eta**2) * eye)
        torch.testing.assert_close(
            stiefel.retract(w, eta * a), (w + eta * a) / math.sqrt(1 + eta**2)
        )


def test_few_rounds_suffice_where_the_gradient_is_far_from_the_range() -> None:
    """The excess of the dual objective on a tall Gaussian problem falls tenfold a round and more."""
    stiefel, spectral = mm.Stiefel(), mm.Spectral()
    w, g = problem_of(stiefel, (512, 64))
    problem = StiefelDual.of(stiefel, spectral, w, g)

    def objective(rounds: int) -> float:
        found = mm.steepest(
            stiefel, spectral, w, g, solver=Lyapunov(tolerance=0.0, max_iterations=rounds)
        )
        assert found.dual is not None
        return float(problem.objective(found.dual))

    best = objective(12)
    excess = [objective(rounds) / best - 1 for rounds in range(1, 4)]
    assert excess[0] <= 1e-5
    assert all(after <= before / 5 for before, after in pairwise(excess)), excess


def test_dual_ascent_depends_on_the_size_of_the_gradient() -> None:
    """The seed's fixed step: other gaps and other directions at scale 1 and 1e-3; the fixed point: none."""
    stiefel, spectral = mm.Stiefel(), mm.Spectral()
    w, g = problem_of(stiefel, (24, 12))

    def found(solver: Solver, scale: float) -> Solution:
        return mm.steepest(stiefel, spectral, w, scale * g, solver=solver)

    def moved(solver: Solver) -> float:
        one, other = found(solver, 1.0).direction, found(solver, 1e-3).direction
        return float(torch.linalg.matrix_norm(one - other, 2))

    seed = DualAscent()
    assert moved(seed) >= 0.1
    gaps = [float(found(seed, scale).gap) for scale in (1.0, 1e-1, 1e-2, 1e-3)]
    assert max(gaps) >= 2 * min(gaps), gaps
    assert moved(Lyapunov()) <= 1e-9
    assert moved(DualAscent(normalise=True, precision="input")) <= 1e-9


def test_dual_ascent_stops_by_its_own_rule() -> None:
    """In bfloat16 the seed's tolerance is out of reach: all hundred steps, and nothing is claimed."""
    w, g = problem_of(mm.Stiefel(), (24, 12))
    found = mm.steepest(mm.Stiefel(), mm.Spectral(), w, g, solver=DualAscent())
    assert found.iterations == 100
    assert found.status is Status.NOT_CERTIFIED
    assert found.tolerance is None
    loose = mm.steepest(mm.Stiefel(), mm.Spectral(), w, g, solver=DualAscent(tolerance=1.0))
    assert loose.iterations == 0
    # Its rule fired at once, at a gap of a tenth: nothing is claimed here either, and the gap is true.
    assert loose.status is Status.NOT_CERTIFIED
    assert loose.tolerance is None
    assert float(loose.gap) > 0.05
    certified(steepest_descent_possible(mm.Stiefel(), mm.Spectral(), w, g), g, loose)


def test_dual_ascent_survives_gradients_of_every_kind() -> None:
    """Ten steps of Polar Express in bfloat16, a hundred times a solve: none may end in NaN."""
    stiefel = mm.Stiefel()
    w = stiefel.random((200, 5, 4))
    found = mm.steepest(stiefel, mm.Spectral(), w, torch.randn(200, 5, 4), solver=DualAscent())
    assert bool(torch.isfinite(found.direction).all())
    assert float(found.gap.max()) <= 0.5


def plain_admm(w: Tensor, g: Tensor, *, rho: float, steps: int) -> Tensor:
    """The multiplier after `steps`, in tall matrices, with a singular value decomposition each."""
    multiplier = -sym(w.mT @ g) / 2
    x = g + 2 * w @ multiplier
    omega = torch.zeros_like(x)
    for _ in range(steps):
        multiplier = sym(w.mT @ (omega / rho + x - g)) / 2
        split = g + 2 * w @ multiplier
        u, sigma, vh = torch.linalg.svd(split - omega / rho, full_matrices=False)
        x = (u * (sigma - 1 / rho).clamp_min(0)) @ vh
        omega = omega + rho * (x - split)
    return multiplier


@pytest.mark.parametrize("shape", [(6, 3), (4, 4), (9, 7)], ids=cases.name)
@pytest.mark.parametrize("rho", [0.3, 4.0, 50.0])
def test_admm_in_n_by_n_is_admm_in_tall_matrices(shape: tuple[int, int], rho: float) -> None:
    """And its ρ acts on the gradient as it came, unless it is asked to normalise it."""
    w, g = problem_of(mm.Stiefel(), shape)
    size = torch.linalg.matrix_norm(g)
    for steps in (0, 1, 2, 10):
        for solver, scaled in (
            (ADMM(rho=rho, steps=steps), g),
            (ADMM(rho=rho, steps=steps, normalise=True), g / size),
        ):
            found = mm.steepest(mm.Stiefel(), mm.Spectral(), w, g, solver=solver)
            assert found.iterations == (0 if shape[0] == shape[1] else steps)
            expected = plain_admm(w, scaled, rho=rho, steps=steps) / torch.linalg.matrix_norm(
                scaled
            )
            torch.testing.assert_close(found.dual, expected)


def test_admm_depends_on_the_size_of_the_gradient() -> None:
    """1/ρ is a size of singular values: after ten steps far better at one scale than at another."""
    w, g = problem_of(mm.Stiefel(), (64, 10))

    def gap(solver: Solver, scale: float) -> float:
        return float(mm.steepest(mm.Stiefel(), mm.Spectral(), w, scale * g, solver=solver).gap)

    gaps = [gap(ADMM(), scale) for scale in (1.0, 1e-1, 1e-2, 1e-3)]
    assert max(gaps) >= 10 * min(gaps), gaps
    normalised = ADMM(normalise=True)
    assert gap(normalised, 1.0) == pytest.approx(gap(normalised, 1e-3), rel=1e-6)


def test_a_warm_start_saves_admm_steps() -> None:
    w, g = problem_of(mm.Stiefel(), (12, 4))
    long = mm.steepest(mm.Stiefel(), mm.Spectral(), w, g, solver=ADMM(steps=300))
    cold = mm.steepest(mm.Stiefel(), mm.Spectral(), w, g, solver=ADMM(steps=1))
    warm = mm.steepest(mm.Stiefel(), mm.Spectral(), w, g, solver=ADMM(steps=1), dual=long.dual)
    assert float(warm.gap) <= 0.1 * float(cold.gap)


@pytest.mark.parametrize("shape", [(24, 12), (12, 24), (8, 8)], ids=cases.name)
def test_spel_is_the_tangent_part_of_the_msign_of_the_riemannian_gradient(
    shape: tuple[int, int],
) -> None:
    stiefel = mm.Stiefel()
    w, g = problem_of(stiefel, shape)
    found = mm.steepest(stiefel, mm.Spectral(), w, g, solver=SPEL(accuracy=1e-12))
    tall_w, tall_g = (w, g) if shape[0] >= shape[1] else (w.mT, g.mT)
    riemannian = tall_g - tall_w @ sym(tall_w.mT @ tall_g)
    a = -mm.msign(riemannian, accuracy="exact")
    tangent = a - tall_w @ sym(tall_w.mT @ a)
    expected = tangent / torch.linalg.matrix_norm(tangent, 2).clamp_min(1)
    torch.testing.assert_close(found.direction, expected if tall_w is w else expected.mT)
    assert found.iterations == 0
    # Only a square W makes this the steepest direction.
    assert (float(found.gap) <= 1e-6) == (shape[0] == shape[1])


def test_the_fixed_point_beats_the_baselines_of_few_steps() -> None:
    w, g = problem_of(mm.Stiefel(), (64, 32))
    gaps = {
        solver.name: float(mm.steepest(mm.Stiefel(), mm.Spectral(), w, g, solver=solver).gap)
        for solver in (Lyapunov(), ADMM(), SPEL())
    }
    assert gaps["lyapunov"] <= 1e-2 < min(gaps["admm"], gaps["spel"])


def test_the_fixed_point_beats_the_ascent() -> None:
    stiefel = mm.Stiefel()
    w, g = problem_of(stiefel, (64, 32))
    ascent = mm.steepest(stiefel, mm.Spectral(), w, g, solver=DualAscent())
    fixed = mm.steepest(stiefel, mm.Spectral(), w, g)
    assert fixed.status is Status.CONVERGED
    assert float(fixed.gap) <= 1e-2 < float(ascent.gap)


def test_a_warm_start_saves_rounds_along_a_path() -> None:
    stiefel, spectral = mm.Stiefel(), mm.Spectral()
    solver = Lyapunov(tolerance=1e-4, max_iterations=500)
    w, g = problem_of(stiefel, (24, 8))
    cold_rounds, warm_rounds, own_rounds, dual = 0, 0, 0, None
    for seed in range(10):
        g = g + 0.02 * problem_of(stiefel, (24, 8), seed + 1)[1]
        cold = mm.steepest(stiefel, spectral, w, g, solver=solver)
        warm = mm.steepest(stiefel, spectral, w, g, solver=solver, dual=dual)
        assert warm.status is cold.status is Status.CONVERGED
        cold_rounds, warm_rounds, dual = (
            cold_rounds + cold.iterations,
            warm_rounds + warm.iterations,
            warm.dual,
        )
        again = mm.steepest(stiefel, spectral, w, g, solver=solver, dual=warm.dual)
        assert again.status is Status.CONVERGED
        own_rounds += again.iterations
    assert warm_rounds <= cold_rounds
    assert own_rounds <= 2 * 10 < cold_rounds


def test_what_did_not_converge_says_so_and_what_to_try() -> None:
    w, g = problem_of(mm.Stiefel(), (5, 4))
    found = mm.steepest(
        mm.Stiefel(), mm.Spectral(), w, g, solver=Lyapunov(tolerance=1e-9, max_iterations=2)
    )
    assert found.status is Status.NOT_CONVERGED
    assert found.iterations == 2
    assert float(found.gap) > 1e-9
    assert str(found.status).startswith("NOT_CONVERGED: ")
    for advice in ("max_iterations", "tolerance", "warm-start"):
        assert advice in str(found.status)


def test_of_a_batch_the_worst_decides() -> None:
    """One hard matrix in a stack: the stack is not converged, and the gap says which one."""
    stiefel = mm.Stiefel()
    w = stiefel.random((2, 5, 4), dtype=torch.float64)
    g = torch.randn(2, 5, 4, dtype=torch.float64)
    g[1] = 0.0
    found = mm.steepest(
        stiefel, mm.Spectral(), w, g, solver=Lyapunov(tolerance=1e-9, max_iterations=2)
    )
    assert found.status is Status.NOT_CONVERGED
    assert float(found.gap[0]) > 1e-9
    assert float(found.gap[1]) == 0.0


def test_rows_are_stepped_whatever_their_sizes() -> None:
    """Oblique × RowRMS: each row of the gradient counts by its direction alone."""
    oblique = mm.Oblique()
    w, g = oblique.random((5, 4)), torch.randn(5, 4)
    sizes = torch.tensor([2.0**-90, 2.0**-30, 1.0, 2.0**30, 2.0**90]).unsqueeze(-1)
    expected = mm.steepest(oblique, mm.RowRMS(), w, g).direction
    found = mm.steepest(oblique, mm.RowRMS(), w, sizes * g).direction
    torch.testing.assert_close(found, expected)


# The table and its front door.


@pytest.mark.parametrize("case", CASES, ids=cases.name)
def test_steepest_keeps_shape_and_dtype(case: cases.SolverCase) -> None:
    shapes: tuple[tuple[int, ...], ...] = ((5, 3), (4,), (2, 3, 2))
    dtypes = (torch.float64, torch.float32, torch.bfloat16)
    for shape, dtype in itertools.product(shapes, dtypes):
        if not cases.fits(case.manifold, shape):
            continue
        w, g = case.manifold.random(shape, dtype=dtype), torch.randn(shape).to(dtype)
        found = mm.steepest(case.manifold, case.norm, w, g, solver=case.solver)
        with cases.Trying(shape, dtype):
            assert found.direction.shape == shape
            assert found.direction.dtype == dtype
            assert found.gap.shape == shape[:-2]


@pytest.mark.parametrize("case", [c for c in CASES if cases.fits(c.manifold, (5,))], ids=cases.name)
def test_a_vector_is_a_column(case: cases.SolverCase) -> None:
    w = case.manifold.random((5, 1), dtype=torch.float64)
    g = torch.randn(5, 1, dtype=torch.float64)
    column = mm.steepest(case.manifold, case.norm, w, g, solver=case.solver)
    vector = mm.steepest(case.manifold, case.norm, w[:, 0], g[:, 0], solver=case.solver)
    # A vector's matrix has strides of its own, which a BLAS may sum in another order.
    close = math.sqrt(torch.finfo(w.dtype).eps)
    torch.testing.assert_close(vector.direction, column.direction[:, 0], rtol=0, atol=close)


@pytest.mark.parametrize("case", CASES, ids=cases.name)
def test_select_answers_which_and_why(case: cases.SolverCase) -> None:
    choice = select(case.manifold, case.norm, (5, 3), "cpu")
    pair = find_pair(case.manifold, case.norm)
    assert choice.solver == pair.solvers[0]
    assert str(choice).startswith(f"{case.manifold} × {case.norm}: {choice.solver.name}, because ")
    # One default for all shapes and devices; the plan is for one of each.
    elsewhere = select(case.manifold, case.norm, (5, 3), "cuda:1")
    assert elsewhere.solver == select(case.manifold, case.norm).solver == choice.solver
    assert choice.plan == choice.solver.plan(case.manifold, case.norm, (5, 3), torch.float32, "cpu")
    assert f" Plan for 5×3 in float32 on cpu: {choice.plan}." in str(choice)
    assert f" Plan for 5×3 in float32 on cuda: {elsewhere.plan}." in str(elsewhere)
    for name in pair.names:
        assert name in str(choice)
    if case.solver in pair.solvers:
        assert find_solver(case.manifold, case.norm, case.solver.name) is case.solver
    assert find_solver(case.manifold, case.norm, case.solver) is case.solver


def test_the_default_for_manifold_muon_is_the_closed_form() -> None:
    first = (
        "Stiefel × Spectral: skew-sign, because the steepest direction is −msign(G Wᵀ − W Gᵀ) W, and its gap is "
        "known in advance."
    )
    assert str(select(mm.Stiefel(), mm.Spectral())) == first
    for shape in ((4, 4), (7, 5, 4), (3, 9)):
        text = str(select(mm.Stiefel(), mm.Spectral(), shape))
        assert text.startswith(f"{first} Plan for {'×'.join(map(str, shape))} in float32 on cpu: ")


def test_a_pair_without_solver_lists_those_with_one() -> None:
    w = mm.Sphere().random((3, 2))
    for call in (
        lambda: select(mm.Sphere(), mm.RowRMS()),
        lambda: mm.steepest(mm.Sphere(), mm.RowRMS(), w, w),
        lambda: mm.Linear(2, 3, manifold=mm.Sphere(), norm=mm.RowRMS()),
    ):
        with pytest.raises(UnsupportedPairError) as caught:
            call()
        for manifold, norm in TABLE:
            assert f"{manifold.__name__} × {norm.__name__}" in str(caught.value)
        assert caught.value.seen == "Sphere × RowRMS"


def test_bad_arguments_are_refused_in_words() -> None:
    w, g = problem_of(mm.Stiefel(), (5, 3))
    with pytest.raises(
        ShapeError,
        match=r"steepest\(gradient\) must have the shape of the point, \(5, 3\), got \(3, 5\)",
    ):
        mm.steepest(mm.Stiefel(), mm.Spectral(), w, g.mT)
    with pytest.raises(ShapeError, match="without empty dimensions"):
        select(mm.Stiefel(), mm.Spectral(), (0, 3))
    for device in ("gpu", "cuda:-1", None):
        with pytest.raises(ArgumentError, match=r"select\(device\) must name a device that torch"):
            select(mm.Stiefel(), mm.Spectral(), (4, 3), device)  # pyright: ignore[reportArgumentType]
    for solver in ("adam", Broken()):
        with pytest.raises(
            ArgumentError,
            match="solver must be 'auto' or one of skew-sign for Stiefel × Spectral, got",
        ):
            mm.steepest(mm.Stiefel(), mm.Spectral(), w, g, solver=solver)
    for solver in (SkewSign(), Lyapunov(), DualAscent(), ADMM(), SPEL()):
        with pytest.raises(
            UnsupportedPairError, match="manifold must be Stiefel for this solver, got Sphere"
        ):
            solver.solve(mm.Sphere(), mm.Spectral(), w, g, None)


def test_a_dual_of_another_weight_is_refused() -> None:
    for manifold, norm, solver, shape in (
        (mm.Stiefel(), mm.Spectral(), Lyapunov(), (3, 3)),
        (mm.SpectralSphere(), mm.Spectral(), "auto", (1, 2)),
    ):
        w, g = manifold.random((5, 3)), torch.randn(5, 3)
        found = mm.steepest(manifold, norm, w, g, solver=solver)
        assert found.dual is not None
        assert found.dual.shape == shape
        mm.steepest(manifold, norm, w, g, solver=solver, dual=found.dual)
        with pytest.raises(ShapeError, match=r"steepest\(dual\) must have the shape"):
            mm.steepest(manifold, norm, w, g, solver=solver, dual=torch.zeros(4, 4))


def test_the_defaults_converge_where_m_is_just_above_n() -> None:
    stiefel = mm.Stiefel()
    for shape in ((40, 5, 4), (40, 9, 8)):
        w = stiefel.random(shape, dtype=torch.float64)
        g = torch.randn(shape, dtype=torch.float64)
        for point, gradient in zip(w, g, strict=True):
            found = mm.steepest(stiefel, mm.Spectral(), point, gradient)
            assert found.status is Status.CONVERGED


def test_of_two_completions_each_matrix_keeps_its_better() -> None:
    stiefel = mm.Stiefel()
    w = stiefel.random((6, 5, 4), dtype=torch.float64)
    g = torch.randn(6, 5, 4, dtype=torch.float64)
    problem = StiefelDual.of(stiefel, mm.Spectral(), w, g)
    # Skew parts of no particular merit: neither is better for all matrices.
    one, other = (
        complete(problem, skew(torch.randn(6, 4, 4, dtype=torch.float64)) / 4) for _ in range(2)
    )
    kept = one.or_better(other)
    wins = one.descent > other.descent
    assert bool(wins.any())
    assert not bool(wins.all())
    assert torch.equal(kept.descent, torch.maximum(one.descent, other.descent))
    a = direction(problem, kept)
    torch.testing.assert_close(
        -(g / g.norm(dim=(1, 2), keepdim=True) * a).sum((1, 2)), kept.descent[:, 0, 0]
    )
    assert torch.equal(one.or_better(None).t, one.t)
