"""The cap on singular values, the top pair and the sign of a symmetric matrix, all without a decomposition."""

from __future__ import annotations

import math
from collections.abc import Callable

import cases
import pytest
import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.linalg.symmetric_sign import symmetric_sign
from modular_manifolds.linalg.top_pair import top_singular_pair
from modular_manifolds.manifolds import spectral_ball, spectral_sphere


def with_singular_values(sigma: Tensor, rows: int, dtype: torch.dtype) -> Tensor:
    n = len(sigma)
    u = torch.linalg.qr(torch.randn(rows, n, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))[0]
    return ((u * sigma.double()) @ v.mT).to(dtype)


def spectra(n: int) -> dict[str, Tensor]:
    """Singular values in radii, at most one radius and a step of 0.1 outside."""
    i = torch.arange(n)
    return {
        "all above": torch.full((n,), 1.1),
        "all at the radius": torch.ones(n),
        "one above": torch.where(i == 0, 1.1, 0.5),
        "rank two": torch.where(i < 2, 1.08, 0.0),
        "even": torch.linspace(0, 1.1, n),
        "crowded": torch.linspace(1 - 1e-4, 1 + 1e-4, n),
        "hardly outside": torch.where(i == 0, 1 + 1e-5, 0.9),
        "far inside": torch.linspace(0, 0.5, n),
        "two on top": torch.where(i < 2, 0.95 + 1e-5 * i, 0.3),
    }


def bar_of(dtype: torch.dtype) -> float:
    return 1e-5 if dtype is torch.float32 else 1e-12


def nearest_in_ball(x: Tensor, radius: float) -> Tensor:
    u, sigma, vh = torch.linalg.svd(x.double(), full_matrices=False)
    return (u * sigma.clamp_max(radius).unsqueeze(-2)) @ vh


def norm_of(x: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(x.double(), 2)


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=cases.name)
@pytest.mark.parametrize("shape", [(6, 3), (40, 40), (30, 90), (9, 1)], ids=cases.name)
@pytest.mark.parametrize("radius", [1.0, 3e-30, 5e20])
def test_the_cap_by_products_is_the_nearest_point(
    shape: tuple[int, int], radius: float, dtype: torch.dtype
) -> None:
    rows, n = max(shape), min(shape)
    for kind, sigma in spectra(n).items():
        x = with_singular_values(sigma, rows, dtype).mul_(radius).reshape(rows, n)
        x = x.mT if shape[0] < shape[1] else x
        a = 0.05 * x
        for length in (0.1 * radius, math.inf):
            with cases.Trying(kind, length):
                found = spectral_ball.retract_by_products(x - a, a, radius, length)
                moved = (x - a) + a
                off = norm_of(found.double() - nearest_in_ball(moved, radius)) / radius
                assert float(off) <= bar_of(dtype)
                assert float(norm_of(found)) <= radius * (1 + bar_of(dtype))
                if kind == "far inside":
                    assert torch.equal(found, moved)


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=cases.name)
@pytest.mark.parametrize("shape", [(6, 3), (40, 40), (30, 90), (9, 1)], ids=cases.name)
@pytest.mark.parametrize("radius", [1.0, 3e-30, 5e20])
def test_the_spectral_sphere_by_products_lands_on_the_sphere(
    shape: tuple[int, int], radius: float, dtype: torch.dtype
) -> None:
    rows, n = max(shape), min(shape)
    for kind, sigma in spectra(n).items():
        x = with_singular_values(sigma, rows, dtype).mul_(radius).reshape(rows, n)
        x = x.mT if shape[0] < shape[1] else x
        a = 0.05 * x
        for length in (0.1 * radius, math.inf):
            with cases.Trying(kind, length):
                found = spectral_sphere.retract_by_products(x - a, a, radius, length)
                # Raised by power iteration, which is exact to second order in how near the two largest are.
                bar = 10 * bar_of(torch.float32) if kind == "two on top" else bar_of(dtype)
                assert abs(float(norm_of(found)) / radius - 1) <= min(bar, 1e-5)


@pytest.mark.parametrize(
    "by_products", [spectral_ball.retract_by_products, spectral_sphere.retract_by_products]
)
def test_no_step_is_too_long(by_products: Callable[..., Tensor]) -> None:
    """Steps of up to 1e38 land; up to 15 radii they land on the nearest point, as decompositions would."""
    torch.manual_seed(1)
    w = mm.SpectralSphere().random((40, 24))
    direction = torch.randn(40, 24)
    direction /= norm_of(direction)
    for eta in (3.0, 15.0, 300.0, 1e10, 1e30, 1e38):
        found = by_products(w, eta * direction, 1.0, math.inf)
        with cases.Trying(eta):
            assert bool(found.isfinite().all())
            assert float(norm_of(found)) <= 1 + 3e-5
            if eta <= 15.0:
                assert float(norm_of(found - nearest_in_ball(w + eta * direction, 1.0))) <= 1e-4
    mixed = torch.zeros(3, 3)
    mixed.diagonal().copy_(torch.tensor([1e30, 1e10, 0.3]))
    assert float(norm_of(by_products(torch.zeros(3, 3), mixed, 1.0, math.inf))) <= 1 + 3e-5
    nan = by_products(
        torch.stack((w, w)), torch.stack((direction, direction * torch.nan)), 1.0, 1.0
    )
    assert nan.isnan().flatten(1).any(1).tolist() == [False, True]


def test_zero_is_raised_to_the_first_basis_matrix() -> None:
    w = torch.ones(2, 3)
    found = spectral_sphere.retract_by_products(w, -w, 2.0, math.inf)
    expected = torch.zeros(2, 3)
    expected[0, 0] = 2.0
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(5, 5), (40, 7), (3, 8, 30)], ids=cases.name)
def test_the_top_pair_by_products(shape: tuple[int, ...]) -> None:
    for size in (1.0, 1e-30, 1e30):
        x = size * torch.randn(shape, dtype=torch.float64)
        u, sigma, v = top_singular_pair(x)
        left, values, right = torch.linalg.svd(x, full_matrices=False)
        torch.testing.assert_close(sigma[..., 0], values[..., :1], rtol=1e-12, atol=0)
        torch.testing.assert_close(u @ v.mT, left[..., :1] @ right[..., :1, :], rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=cases.name)
@pytest.mark.parametrize("n", [1, 6, 60, 520])
def test_the_symmetric_sign_gives_the_absolute_value(n: int, dtype: torch.dtype) -> None:
    """To rounding of the whole, for eigenvalues of all sizes; from 512 columns on, half of each product is mirrored."""
    eigenvalues = torch.logspace(0, -9, n, dtype=torch.float64) * (-1.0) ** torch.arange(n)
    q = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))[0]
    d = ((q * eigenvalues) @ q.mT).to(dtype)
    sign, scale = symmetric_sign(d)
    expected = (q * eigenvalues.abs()) @ q.mT
    assert 1 - 1e-6 <= float(scale) <= n**0.25 * (1 + 1e-6)
    # Some thirty products round by √n eps each, and errors of the sign count once.
    allowed = 32 * max(n, 4) ** 0.5 * torch.finfo(dtype).eps
    assert float(norm_of(d.double() @ sign.double() - expected)) <= allowed
