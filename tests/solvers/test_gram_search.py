"""The multiplier of both spheres by Gram matrices: a true gap, a tangent direction, and each matrix for itself."""

from __future__ import annotations

import cases
import pytest
import torch
from convex import certified, problem_of, steepest_descent_possible
from long_tests import mostly_long
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.errors import NonFiniteError
from modular_manifolds.solvers import Solution, SpectralSphereDual
from modular_manifolds.solvers.gram_search import ByGrams

SPHERES = pytest.mark.parametrize("sphere", [mm.SpectralSphere(), mm.Sphere(2.5)], ids=cases.name)
NORM = mm.Spectral()
SHAPES = [(6, 3), (4, 4), (2, 7), (1, 1), (5, 1), (64, 32)]


def solve(
    sphere: mm.Manifold, w: Tensor, g: Tensor, dual: Tensor | None = None, tolerance: float = 1e-2
) -> Solution:
    solver = SpectralSphereDual(tolerance=tolerance)
    plan = solver.plan(sphere, NORM, tuple(w.shape), w.dtype, "cpu")
    assert isinstance(plan, ByGrams)
    return mm.steepest(sphere, NORM, w, g, dual=dual, solver=solver)


def gradients(w: Tensor) -> dict[str, Tensor]:
    g = torch.randn_like(w)
    return {
        "normal": g,
        "of rank one": g[..., :1] @ g[..., :1, :],
        "uneven": g * torch.logspace(0, -6, w.shape[-1]),
        "nearly normal": w + 1e-2 * g,
        "more nearly normal": w + 1e-4 * g,
        "large": 1e30 * g,
        "small": 1e-30 * g,
    }


@SPHERES
@pytest.mark.parametrize("shape", mostly_long(SHAPES, usual=2), ids=cases.name)
def test_the_gap_is_true_and_the_direction_feasible(
    sphere: mm.Manifold, shape: tuple[int, int]
) -> None:
    """Also at points whose largest singular values are one and the same."""
    w = sphere.random((8, *shape))
    exact = SpectralSphereDual(tolerance=1e-7)
    for point in (w, sphere.project(3 * w)):
        for kind, g in gradients(point).items():
            best = mm.steepest(sphere, NORM, point.double(), g.double(), solver=exact)
            unit = g.double() / torch.linalg.matrix_norm(g.double(), keepdim=True)
            possible = -(unit * best.direction).sum((1, 2))
            for tolerance in (1e-2, 1e-3):
                found = solve(sphere, point, g, tolerance=tolerance)
                with cases.Trying(kind, tolerance):
                    assert float(found.gap.max()) <= tolerance
                    short = possible - -(unit * found.direction).sum((1, 2))
                    # A gradient in float32 is itself rounded, and its tangent part with it.
                    assert bool((short <= (found.gap + 1e-6) * possible + 1e-6).all())
                    norms = torch.linalg.matrix_norm(found.direction, 2)
                    assert bool((norms <= 1 + 1e-5).all())
                    off = found.direction - sphere.tangent(point, found.direction)
                    assert float(torch.linalg.matrix_norm(off).max()) <= 1e-5


@SPHERES
@pytest.mark.parametrize("shape", [(6, 3), (4, 4), (3, 5)], ids=cases.name)
def test_it_agrees_with_a_convex_solver(sphere: mm.Manifold, shape: tuple[int, int]) -> None:
    w, g = problem_of(sphere, shape)
    w, g = sphere.project(w.float()), g.float()
    best = steepest_descent_possible(sphere, NORM, w.double(), g.double())
    for tolerance in (1e-1, 1e-2, 1e-3):
        found = solve(sphere, w, g, tolerance=tolerance)
        shortfall = 1 + float((g.double() * found.direction).sum()) / best
        assert -1e-6 <= shortfall <= float(found.gap) + 1e-6
    found = mm.steepest(sphere, NORM, w.double(), g.double())
    certified(best, g.double(), found)


@SPHERES
@pytest.mark.parametrize("shape", [(9, 5), (5, 9)], ids=cases.name)
def test_a_matrix_does_not_see_the_rest_of_its_stack(
    sphere: mm.Manifold, shape: tuple[int, int]
) -> None:
    """Easy and hard ones together: each stops at its own gap, with its own multiplier."""
    w, g = sphere.random((12, *shape)), torch.randn(12, *shape)
    g[::3] = g[::3, :, :1] @ g[::3, :1]
    g[5] = 0.0
    stack = solve(sphere, w, g)
    assert stack.dual is not None
    rounds = set()
    for i in range(12):
        one = solve(sphere, w[i : i + 1], g[i : i + 1])
        assert one.dual is not None
        rounds.add(one.iterations)
        torch.testing.assert_close(one.direction[0], stack.direction[i], atol=1e-6, rtol=0)
        torch.testing.assert_close(one.dual[0], stack.dual[i], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(one.gap[0], stack.gap[i], atol=1e-9, rtol=0)
    assert len(rounds) > 2
    assert stack.iterations == max(rounds)


@SPHERES
def test_few_decompositions_are_enough_along_a_path(sphere: mm.Manifold) -> None:
    """With momentum, gradients turn slowly: Newton's step from the last multiplier is a good one."""
    w, average, dual, rounds = sphere.random((48, 24)), torch.zeros(48, 24), None, []
    for _ in range(40):
        average = 0.95 * average + 0.05 * torch.randn(48, 24)
        found = solve(sphere, w, average, dual)
        dual = found.dual
        rounds.append(int(found.iterations))
        w = sphere.retract(w, 0.02 * found.direction)
    assert sum(rounds[20:]) / 20 <= 2.6
    assert max(rounds) <= 4


@SPHERES
def test_its_own_dual_needs_no_more_decompositions(sphere: mm.Manifold) -> None:
    w = sphere.random((20, 7, 4))
    for g in gradients(w).values():
        for point, gradient in zip(w, g, strict=True):
            cold = solve(sphere, point, gradient)
            warm = solve(sphere, point, gradient, cold.dual)
            assert warm.iterations <= min(2, cold.iterations)


@SPHERES
def test_nan_is_named(sphere: mm.Manifold) -> None:
    w, g = sphere.random((5, 3)), torch.randn(5, 3)
    with pytest.raises(NonFiniteError, match=r"gradient.* must be finite"):
        solve(sphere, w, g.index_fill(0, torch.tensor([2]), torch.nan))
    with pytest.raises(NonFiniteError, match="must be finite"):
        solve(sphere, w.index_fill(0, torch.tensor([2]), torch.inf), g)
