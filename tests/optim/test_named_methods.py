"""Every method that the post names is a pair of a manifold and a norm: its step, written out by itself."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.solvers import Solver, SpectralSphereDual

LR = 0.1


def after_one_step(
    manifold: mm.Manifold, norm: mm.Norm, w: Tensor, g: Tensor, solver: str | Solver = "auto"
) -> Tensor:
    """The weight after one step of length LR by the library's optimiser."""
    net = mm.Linear(w.shape[1], w.shape[0], manifold=manifold, norm=norm).to(w.dtype)
    opt = mm.SteepestDescent(net, lr=LR, solver=solver)
    opt.param_groups[0]["shares"] = [1.0]
    with torch.no_grad():
        net.weight.copy_(w)
    net.weight.grad = g.clone()
    opt.step()
    return net.weight.detach()


def start(manifold: mm.Manifold) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return manifold.random((5, 4), dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)


def polar(x: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    return u @ vh


def agree(found: Tensor, expected: Tensor, *, accuracy: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, atol=accuracy, rtol=0)


def test_gradient_descent_is_euclidean_with_frobenius() -> None:
    w, g = start(mm.Euclidean())
    agree(after_one_step(mm.Euclidean(), mm.Frobenius(), w, g), w - LR * g / g.norm())


def test_sign_descent_is_euclidean_with_the_largest_entry() -> None:
    w, g = start(mm.Euclidean())
    agree(after_one_step(mm.Euclidean(), mm.Max(), w, g), w - LR * g.sign())


def test_muon_is_euclidean_with_the_spectral_norm() -> None:
    """To the accuracy of its msign, which the norm states."""
    w, g = start(mm.Euclidean())
    off = LR * mm.Spectral.accuracy
    agree(after_one_step(mm.Euclidean(), mm.Spectral(), w, g), w - LR * polar(g), accuracy=off)


def test_hyperspherical_descent_is_the_sphere_with_frobenius() -> None:
    w, g = start(mm.Sphere())
    a = g - w * (w * g).sum()
    expected = (w - LR * a / a.norm()) / math.sqrt(1 + LR**2)
    agree(after_one_step(mm.Sphere(), mm.Frobenius(), w, g), expected)


def test_the_non_riemannian_sphere_is_the_sphere_with_the_largest_entry() -> None:
    """`−sign(g − λw)` with λ found by trying every ratio, and the entry at λ what keeps the step tangent."""
    w, g = start(mm.Sphere())
    flat_w, flat_g = w.flatten(), g.flatten()
    ratios = flat_g / flat_w
    costs = torch.stack([(flat_g - ratio * flat_w).abs().sum() for ratio in ratios])
    i = int(costs.argmin())
    a = -(flat_g - ratios[i] * flat_w).sign()
    a[i] = 0.0
    a[i] = -(a @ flat_w) / flat_w[i]
    assert float(a.abs().max()) <= 1
    moved = w + LR * a.reshape(w.shape)
    agree(after_one_step(mm.Sphere(), mm.Max(), w, g), moved / moved.norm())


def test_muon_on_the_sphere_is_hyperball_with_a_tangent_direction() -> None:
    """`−polar(G + λW)`, λ found by bisection: the step of MuonH is that of λ = 0, which is not tangent."""
    w, g = start(mm.Sphere())
    low, high = -100.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        below = float((w * polar(g + middle * w)).sum()) < 0
        low, high = (middle, high) if below else (low, middle)
    a = -polar(g + low * w)
    assert abs(float((w * a).sum())) <= 1e-12 < abs(float((w * polar(g)).sum()))
    moved = w + LR * a
    # A gap of 1e-6 leaves half its digits of the direction.
    tight = SpectralSphereDual(tolerance=1e-6)
    landed = after_one_step(mm.Sphere(), mm.Spectral(), w, g, tight)
    agree(landed, moved / moved.norm(), accuracy=1e-3 * LR)


def test_manifold_muon_is_stiefel_with_the_spectral_norm() -> None:
    """It descends within 1 % as far as a long dual ascent without noise allows, and lands on the manifold."""
    w, g = start(mm.Stiefel())
    multiplier, best = torch.zeros(4, 4, dtype=torch.float64), math.inf
    for k in range(4000):
        a = -polar(g + 2 * w @ multiplier)
        multiplier = multiplier + 0.05 / (1 + 0.02 * k) * (w.mT @ a + a.mT @ w)
        best = min(best, float(torch.linalg.svdvals(g + 2 * w @ multiplier).sum()))
    landed = after_one_step(mm.Stiefel(), mm.Spectral(), w, g)
    # Back along the retraction: W' = (W + ηA)/√(1 + η²), nearly.
    a = (landed * math.sqrt(1 + LR**2) - w) / LR
    assert -float((g * a).sum()) >= 0.98 * best
    agree(landed.mT @ landed, torch.eye(4, dtype=torch.float64), accuracy=1e-10)


def test_manifold_muon_of_a_square_weight_is_a_closed_form() -> None:
    torch.manual_seed(0)
    w, g = mm.Stiefel().random((4, 4), dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    k = w.mT @ g
    a = -w @ polar(k - k.mT)
    landed = after_one_step(mm.Stiefel(), mm.Spectral(), w, g)
    agree(landed, (w + LR * a) / math.sqrt(1 + LR**2), accuracy=1e-2 * LR)


def test_edm2_weight_normalisation_is_oblique_with_the_largest_row() -> None:
    """Each row takes its gradient without the part along it, at RMS one, and is normalised by force."""
    w, g = start(mm.Oblique())
    a = g - w * (w * g).sum(dim=1, keepdim=True)
    moved = w - LR * math.sqrt(4) * a / a.norm(dim=1, keepdim=True)
    agree(after_one_step(mm.Oblique(), mm.RowRMS(), w, g), moved / moved.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("radius", [1.0, 2.0])
def test_weight_standardisation_and_nero_are_balanced_rows(radius: float) -> None:
    """Each row loses its mean and its part along itself; after the step it is standardised again."""
    manifold = mm.BalancedRows(radius)
    w, g = start(manifold)
    unit = w / radius
    a = g - g.mean(dim=1, keepdim=True)
    a = a - unit * (unit * a).sum(dim=1, keepdim=True)
    moved = w - LR * math.sqrt(4) * a / a.norm(dim=1, keepdim=True)
    moved = moved - moved.mean(dim=1, keepdim=True)
    expected = radius * moved / moved.norm(dim=1, keepdim=True)
    agree(after_one_step(manifold, mm.RowRMS(), w, g), expected)


def test_spectral_normalisation_is_the_spectral_ball() -> None:
    """A step of Muon, then every singular value above the radius is capped."""
    ball = mm.SpectralBall(0.9)
    w, g = start(ball)
    u, sigma, vh = torch.linalg.svd(w - LR * polar(g), full_matrices=False)
    assert float(sigma[0]) > 0.9
    off = LR * mm.Spectral.accuracy * 2
    landed = after_one_step(ball, mm.Spectral(), w, g)
    agree(landed, (u * sigma.clamp_max(0.9)) @ vh, accuracy=off)
    assert float(torch.linalg.matrix_norm(landed, 2)) <= 0.9 * (1 + 1e-12)
