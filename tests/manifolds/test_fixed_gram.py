"""Weights that are only turned: steps by every path keep all singular values, and the steepest turn is the closed form."""

from __future__ import annotations

import cases
import pytest
import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.linalg.fixed_gram import orthonormal_columns, turned_within
from modular_manifolds.linalg.matrices import readable
from modular_manifolds.solvers import SkewSign

SHAPES = [(6, 3), (4, 4), (3, 5), (2, 7, 4)]
UNREADABLE = "modular_manifolds.linalg.fixed_gram.readable"


def uneven(shape: tuple[int, int], smallest: float, dtype: torch.dtype) -> Tensor:
    """A matrix of spectral norm 1 with singular values down to `smallest`; `smallest=0` leaves the last one out."""
    u, sigma, vh = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    sigma = torch.logspace(0, -3, len(sigma), dtype=torch.float64)
    sigma[-1] = smallest
    return (u * sigma @ vh).to(dtype)


def steepest_turn(w: Tensor, g: Tensor) -> Tensor:
    """`−msign(G Wᵀ − W Gᵀ)` of tall matrices, by its definition."""
    gamma = g @ w.mT
    u, sigma, vh = torch.linalg.svd(gamma - gamma.mT)
    return -(u * (sigma > 1e-12 * sigma[..., :1]).unsqueeze(-2)) @ vh


@pytest.mark.parametrize("radius", [1.0, 2.2])
@pytest.mark.parametrize("shape", [(6, 3), (4, 4), (9, 2)], ids=cases.name)
def test_the_direction_and_the_step_are_those_of_the_formula(
    shape: tuple[int, int], radius: float
) -> None:
    manifold = mm.FixedGram(radius)
    w = manifold.random(shape, dtype=torch.float64)
    g = torch.randn_like(w)
    omega = steepest_turn(w, g) / radius
    turned = [(w.mT, g.mT, (omega @ w).mT)] if shape[0] > shape[1] else []
    for point, gradient, expected in [(w, g, omega @ w), *turned]:
        found = mm.steepest(manifold, mm.Spectral(), point, gradient, solver=SkewSign(1e-9))
        torch.testing.assert_close(found.direction, expected, atol=1e-8, rtol=0)
    eye, eta = torch.eye(len(w), dtype=w.dtype), 0.3
    values, vectors = torch.linalg.eigh(eye - eta**2 * omega @ omega)
    exact = (eye + eta * omega) @ (vectors * values.rsqrt()) @ vectors.mT @ w
    torch.testing.assert_close(manifold.retract(w, eta * omega @ w), exact, atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=cases.name)
def test_coordinates_measure_the_turn(shape: tuple[int, ...]) -> None:
    """Their spectral norm is at least that of the step; on a Stiefel point of the radius they are the step."""
    manifold, norm = mm.FixedGram(1.7), mm.Spectral()
    w = manifold.random(shape, dtype=torch.float64)
    x, g = torch.randn_like(w), torch.randn_like(w)
    a = manifold.tangent(w, x)
    coordinates = manifold.coordinates(w, a)
    assert bool((norm.value(coordinates) >= norm.value(a) * (1 - 1e-12)).all())
    inner = (coordinates * manifold.gradient_coordinates(w, g)).sum((-2, -1))
    torch.testing.assert_close(inner, (a * g).sum((-2, -1)))
    same = mm.Stiefel(1.7).random(shape, dtype=torch.float64)
    torch.testing.assert_close(manifold.coordinates(same, x), x)
    torch.testing.assert_close(manifold.gradient_coordinates(same, x), x)
    expected = mm.Stiefel(1.7).tangent(same, x)
    torch.testing.assert_close(manifold.tangent(same, x), expected)


@pytest.mark.parametrize("smallest", [1e-3, 1e-9, 0.0])
@pytest.mark.parametrize("shape", [(60, 20), (20, 20), (60, 50)], ids=cases.name)
@pytest.mark.parametrize("on_host", [True, False])
def test_hardly_present_directions_do_no_harm(
    shape: tuple[int, int], smallest: float, on_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float32: the direction is the steepest turn to within the tolerance, and the step keeps the Gram matrix."""
    manifold, norm, solver = mm.FixedGram(), mm.Spectral(), SkewSign()
    w, g = uneven(shape, smallest, torch.float32), torch.randn(shape)
    omega = steepest_turn(w.double(), g.double())
    best = -float((omega @ w.double() * g).sum())
    if not on_host:
        monkeypatch.setattr(UNREADABLE, lambda _: False)
    plan = solver.plan(manifold, norm, shape, torch.float32, "cpu" if on_host else "cuda")
    found = plan.solve(w, g)
    short = 1 + float((found.direction * g).sum()) / best
    assert -1e-5 <= short <= float(found.gap) + 1e-5 <= 2e-2
    for eta in (1e-3, 0.1, 0.9):
        step = eta * found.direction
        landed = manifold.retract(w, step) if on_host else turned_within(w, step, eta)
        assert float(manifold.leaf(w).residual(landed)) <= 1e-6 + 5e-6 * eta**2
        # The rounding of the step, over the smallest singular values, does not come back as a step of another size.
        assert float(torch.linalg.matrix_norm(landed - w - step, 2)) <= eta**2 + 1e-2 * eta


def test_a_leaf_is_a_manifold_of_its_own() -> None:
    w = mm.FixedGram(2.0).random((5, 3), dtype=torch.float64)
    leaf = mm.FixedGram(2.0).leaf(w)
    x = torch.randn_like(w)
    nearest = leaf.project(x)
    assert float(leaf.residual(nearest)) <= 1e-14
    # Normal to the leaf: X − P is W' S with S symmetric.
    torch.testing.assert_close(leaf.tangent(nearest, x - nearest), torch.zeros_like(w))
    assert float(leaf.residual(1.01 * w)) == pytest.approx(
        0.0201 * float((w.mT @ w).abs().amax()) / 4
    )
    assert float(leaf.scaled(3.0).residual(3 * w)) <= 1e-15
    assert float(leaf.residual(leaf.random((5, 3), dtype=torch.float64))) <= 1e-14
    vector = mm.FixedGram().leaf(torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(vector.project(torch.tensor([0.0, 2.0])), torch.tensor([0.0, 5.0]))
    zero = torch.zeros(4, 3)
    assert float(mm.FixedGram().retract(zero, zero).abs().max()) == 0.0
    assert mm.Sphere().leaf(w) == mm.Sphere()


@pytest.mark.parametrize("on_host", [True, False])
def test_hundreds_of_steps_do_not_drift(on_host: bool) -> None:
    """A random walk of the rounding of the sum: after k steps about 0.06 √k eps of the largest singular value."""
    manifold, norm, shape = mm.FixedGram(), mm.Spectral(), (4, 16, 12)
    first = manifold.random(shape)
    w, sigma = first, torch.linalg.svdvals(first.double())
    device = "cpu" if on_host else "cuda"
    plan = SkewSign().plan(manifold, norm, shape, torch.float32, device)
    for _ in range(300):
        step = plan.solve(w, torch.randn(shape)).direction.mul_(0.02)
        w = manifold.retract(w, step) if on_host else turned_within(w, step, 0.02)
    drift = (torch.linalg.svdvals(w.double()) - sigma).abs().amax()
    assert float((w - first).norm() / first.norm()) > 0.2
    assert float(drift) <= 8 * torch.finfo(torch.float32).eps


def test_columns_are_orthonormal_by_both_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.stack([uneven((40, 12), 1e-3, torch.float32), torch.randn(40, 12)])
    assert readable(x)
    for on_host in (True, False):
        if not on_host:
            monkeypatch.setattr(UNREADABLE, lambda _: False)
        q, b = orthonormal_columns(x)
        torch.testing.assert_close(q @ b, x, atol=2e-6, rtol=0)
        eye = torch.eye(12).expand(2, 12, 12)
        torch.testing.assert_close(q.mT @ q, eye, atol=1e-4, rtol=0)
        torch.testing.assert_close(b, b.triu())
