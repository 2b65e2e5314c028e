"""Every solver agrees with a convex solver that knows none of our formulas, and its gap is a certificate."""

from __future__ import annotations

import cases
import pytest
import torch
from convex import certified, descent, problem_of, steepest_descent_possible
from long_tests import mostly_long
from modular_manifolds_bench.baselines import ADMM, SPEL, DualAscent, Lyapunov, LyapunovProducts
from modular_manifolds_bench.baselines.stiefel_dual import StiefelDual
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.linalg.symmetric import sym
from modular_manifolds.solvers import SkewSign, Solver, SpectralSphereDual
from modular_manifolds.solvers.solution import Status

AGREES = 1e-5
"""The relative difference allowed between our objective and the convex solver's."""

SMALL = [(6, 3), (4, 4), (3, 5)]

ITERATIVE = (Lyapunov, LyapunovProducts, SkewSign, DualAscent, ADMM, SPEL)
"""Solvers that stop at a tolerance or at a count, and are held to their certificate."""


@pytest.mark.parametrize("shape", SMALL, ids=cases.name)
@pytest.mark.parametrize(
    "case", [c for c in cases.SOLVERS if not isinstance(c.solver, ITERATIVE)], ids=cases.name
)
def test_closed_forms_agree_with_a_convex_solver(
    case: cases.SolverCase, shape: tuple[int, int]
) -> None:
    w, g = problem_of(case.manifold, shape)
    one_multiplier = isinstance(case.solver, SpectralSphereDual)
    solver = SpectralSphereDual(tolerance=1e-6) if one_multiplier else case.solver
    found = mm.steepest(case.manifold, case.norm, w, g, solver=solver)
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
@pytest.mark.parametrize(
    "shape",
    mostly_long([*SMALL, (5, 4), (2, 1)], usual=lambda shape: shape != (5, 4)),
    ids=cases.name,
)
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
    mostly_long(
        [
            DualAscent(),
            DualAscent(steps=3),
            DualAscent(precision="input", step_size=0.1, steps=400),
        ],
        usual=lambda solver: solver.steps < 400,
    ),
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


@pytest.mark.parametrize("shape", mostly_long([*SMALL, (5, 4)], usual=2), ids=cases.name)
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


@pytest.mark.parametrize("shape", mostly_long([*SMALL, (5, 4)], usual=4), ids=cases.name)
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
