"""Published solvers, the baselines, compute what their authors wrote."""

from __future__ import annotations

import cases
import pytest
import torch
from convex import certified, problem_of, steepest_descent_possible
from modular_manifolds_bench.baselines import ADMM, SPEL, DualAscent, Lyapunov
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.linalg.symmetric import sym
from modular_manifolds.solvers import Solver
from modular_manifolds.solvers.solution import Solution, Status


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
