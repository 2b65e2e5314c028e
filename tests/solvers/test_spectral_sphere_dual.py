"""The one multiplier of both spheres: bracketed by the tangent part alone, and started where it last was."""

from __future__ import annotations

import cases
import pytest
import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.errors import NonFiniteError
from modular_manifolds.solvers import Solution, SpectralSphereDual
from modular_manifolds.solvers.solution import Status

SPHERES = pytest.mark.parametrize("sphere", [mm.SpectralSphere(), mm.Sphere(2.5)], ids=cases.name)
NORM = mm.Spectral()
TIGHT = SpectralSphereDual(tolerance=1e-6)
"""By decompositions of the weight's size, in which a multiplier is found to many digits."""
SHAPES = [(6, 3), (4, 4), (2, 7), (64, 32)]


def solve(sphere: mm.Manifold, w: Tensor, g: Tensor, dual: Tensor | None = None) -> Solution:
    found = mm.steepest(sphere, NORM, w, g, dual=dual, solver=TIGHT)
    assert found.status is Status.CONVERGED
    return found


def nuclear(tangent: Tensor, n: Tensor, multiplier: Tensor) -> Tensor:
    return torch.linalg.svdvals(tangent + multiplier * n).sum(dim=-1)


def tangent_part(sphere: mm.Manifold, w: Tensor, g: Tensor) -> Tensor:
    tangent = sphere.tangent(w, g)
    return tangent / torch.linalg.matrix_norm(tangent, keepdim=True)


@SPHERES
@pytest.mark.parametrize("shape", SHAPES, ids=cases.name)
def test_the_bracket_is_proved(sphere: mm.Manifold, shape: tuple[int, int]) -> None:
    """`φ(λ) ≥ |λ|` for a tangent gradient, so the minimum lies within φ(0) of zero; for the whole G it need not."""
    w = sphere.random((20, *shape), dtype=torch.float64)
    t = tangent_part(sphere, w, torch.randn(20, *shape, dtype=torch.float64))
    n = sphere.unit_normal(w)
    for multiplier in torch.linspace(-30, 30, 61, dtype=torch.float64):
        assert bool((nuclear(t, n, multiplier) >= multiplier.abs() - 1e-12).all())
    for point, gradient in zip(w, t, strict=True):
        found = solve(sphere, point, gradient)
        assert found.dual is not None
        assert found.dual.shape == (1, 2)
        at_zero = nuclear(gradient, sphere.unit_normal(point), torch.zeros(()))
        assert bool((found.dual.abs() <= max(float(at_zero), min(shape) ** 0.5) + 1e-12).all())


@SPHERES
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=cases.name)
@pytest.mark.parametrize("shape", SHAPES, ids=cases.name)
def test_the_normal_part_of_the_gradient_changes_nothing(
    sphere: mm.Manifold, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    w = sphere.random(shape, dtype=dtype)
    tangent = tangent_part(sphere, w, torch.randn(shape, dtype=dtype))
    plain = solve(sphere, w, tangent)
    for normal in (-30.0, 1.0, 30.0):
        found = solve(sphere, w, tangent + normal * sphere.unit_normal(w).to(dtype))
        assert found.iterations == plain.iterations
        torch.testing.assert_close(found.dual, plain.dual, rtol=1e-3, atol=1e-3)
        along = (-(tangent * each.direction).sum() for each in (found, plain))
        assert float(next(along)) == pytest.approx(float(next(along)), rel=1e-5)


@SPHERES
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=cases.name)
@pytest.mark.parametrize("shape", SHAPES, ids=cases.name)
def test_its_own_dual_saves_all_but_two_decompositions(
    sphere: mm.Manifold, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    """Kinks and all: rank-one gradients, and points whose largest singular values are one and the same."""
    for seed in range(5):
        w = sphere.random(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
        g = torch.randn(shape, dtype=dtype)
        capped = sphere.project(3 * w)
        for point, gradient in ((w, g), (w, g[:, :1] @ g[:1]), (capped, g), (w, w + 0.05 * g)):
            cold = solve(sphere, point, gradient)
            warm = solve(sphere, point, 2.0**20 * gradient, cold.dual)
            assert warm.iterations <= min(2, cold.iterations)
            descents = (-(gradient * each.direction).sum() for each in (warm, cold))
            assert float(next(descents)) == pytest.approx(float(next(descents)), rel=1e-5)


@SPHERES
def test_a_warm_start_saves_decompositions_along_a_path(sphere: mm.Manifold) -> None:
    w = sphere.random((24, 12), dtype=torch.float64)
    g = torch.randn(24, 12, dtype=torch.float64)
    cold, warm, dual = 0, 0, None
    for _ in range(20):
        g = g + 0.02 * torch.randn_like(g)
        cold += solve(sphere, w, g).iterations
        found = solve(sphere, w, g, dual)
        warm, dual = warm + found.iterations, found.dual
        w = sphere.retract(w, 0.02 * found.direction)
    assert warm <= 0.85 * cold


@SPHERES
def test_a_stranger_s_dual_does_no_harm(sphere: mm.Manifold) -> None:
    """Any λ is only a place to look first: huge ones, equal ones, those of another gradient; and zero stays zero."""
    w = sphere.random((3, 9, 5), dtype=torch.float64)
    g = torch.randn(3, 9, 5, dtype=torch.float64)
    g[1] = 0.0
    expected = -(g * solve(sphere, w, g).direction).sum((1, 2))
    for first, second in ((1e9, -1e9), (0.3, 0.3), (-2.0, 0.1)):
        dual = torch.tensor([first, second], dtype=torch.float64).expand(3, 1, 2)
        found = solve(sphere, w, g, dual)
        assert int(found.direction[1].count_nonzero()) == 0
        torch.testing.assert_close(-(g * found.direction).sum((1, 2)), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=cases.name)
def test_a_weight_of_rank_one_has_one_direction_on_both_spheres(shape: tuple[int, int]) -> None:
    """Its only singular pair is its normal on both, so the two problems are one."""
    generator = torch.Generator().manual_seed(0)
    column, row, g = (
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in ((shape[0], 1), (1, shape[1]), shape)
    )
    w = column @ row
    spectral, frobenius = (solve(each, w, g) for each in (mm.SpectralSphere(), mm.Sphere()))
    torch.testing.assert_close(frobenius.direction, spectral.direction, rtol=0, atol=1e-6)
    torch.testing.assert_close(frobenius.dual, spectral.dual, rtol=0, atol=1e-6)


def test_a_weight_of_zero_restricts_nothing() -> None:
    """A caller's mistake on the sphere: it has no normal there, and the direction is Muon's."""
    g = torch.randn(5, 3, dtype=torch.float64)
    found = solve(mm.Sphere(), torch.zeros_like(g), g)
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    torch.testing.assert_close(found.direction, -u @ vh)


@SPHERES
def test_a_point_of_nan_is_named(sphere: mm.Manifold) -> None:
    w, g = torch.full((5, 3), torch.nan), torch.randn(5, 3)
    with pytest.raises(NonFiniteError, match="must be finite, got NaN or infinity"):
        mm.steepest(sphere, NORM, w, g)


@SPHERES
def test_the_first_ends_need_no_decomposition(sphere: mm.Manifold) -> None:
    """With no round at all the direction is feasible and the gap says that nothing is known."""
    w = sphere.random((6, 3), dtype=torch.float64)
    g = torch.randn(6, 3, dtype=torch.float64)
    none = SpectralSphereDual(max_iterations=0)
    found = mm.steepest(sphere, NORM, w, g, solver=none)
    assert found.status is Status.NOT_CONVERGED
    assert float(found.gap) == pytest.approx(1.0)
    torch.testing.assert_close(found.direction, torch.zeros_like(g))


@SPHERES
def test_the_optimizer_starts_from_the_last_multiplier(sphere: mm.Manifold) -> None:
    net = mm.Linear(8, 6, manifold=sphere, norm=NORM) >> mm.Linear(6, 8, manifold=sphere, norm=NORM)
    net = net >> mm.Linear(8, 6, manifold=sphere, norm=NORM)
    x, opt = torch.randn(32, 8), mm.SteepestDescent(net, lr=0.01, momentum=0.9)
    for _ in range(3):
        opt.zero_grad()
        net(x).square().sum().backward()
        opt.step()
    for p in net.parameters():
        assert opt.state[p]["dual"].shape == (1, 2)
        assert float(opt.state[p]["dual"].abs().sum()) > 0
