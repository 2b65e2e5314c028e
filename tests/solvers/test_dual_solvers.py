"""The solvers of the Stiefel dual do what MATH section 2 says: sizes, rounds, descent and certificates."""

from __future__ import annotations

import math
from itertools import pairwise

import cases
import numpy as np
import pytest
import torch
from convex import problem_of
from modular_manifolds_bench.baselines import ADMM, SPEL, DualAscent, Lyapunov
from modular_manifolds_bench.baselines.completion import complete, direction
from modular_manifolds_bench.baselines.stiefel_dual import StiefelDual, skew

import modular_manifolds as mm
from modular_manifolds.linalg.matrices import normalise
from modular_manifolds.linalg.symmetric import gram, sym
from modular_manifolds.solvers import SkewSign
from modular_manifolds.solvers.solution import Status


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
