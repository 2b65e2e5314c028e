"""The polynomials of the matrix sign are the published ones, fix one, and do not diverge."""

from __future__ import annotations

import cases
import pytest
import torch
from spectra import orthonormal, with_values

from modular_manifolds.linalg.coefficients import (
    NEWTON_SCHULZ_CUBIC,
    NEWTON_SCHULZ_QUINTIC,
    POLAR_EXPRESS,
)
from modular_manifolds.linalg.newton_schulz import inverse_root, iterate, schedule
from modular_manifolds.linalg.symmetric import gram


@pytest.mark.parametrize("polynomial", [NEWTON_SCHULZ_CUBIC, NEWTON_SCHULZ_QUINTIC])
def test_newton_schulz_polynomials_fix_one(polynomial: tuple[float, float, float]) -> None:
    a, b, c = polynomial
    assert a + b + c == 1.0
    assert a + 3 * b + 5 * c == 0.0


def test_polar_express_is_the_published_table_with_its_safety() -> None:
    assert len(POLAR_EXPRESS) == 8
    a, b, c = POLAR_EXPRESS[0]
    assert a * 1.01 == pytest.approx(8.28721201814563)
    assert b * 1.01**3 == pytest.approx(-23.595886519098837)
    assert c * 1.01**5 == pytest.approx(17.300387312530933)
    assert POLAR_EXPRESS[-1] == (1.875, -1.25, 0.375)


def test_schedules_are_short() -> None:
    """More accuracy or a lower floor takes more steps; the common case takes eight at most."""
    lengths = [len(schedule(accuracy, 1e-3)) for accuracy in (0.3, 1e-2, 1e-6, 1e-12)]
    assert lengths == sorted(lengths)
    assert len(schedule(1e-3, 1e-3)) <= 8
    assert len(schedule(1e-3, 1e-6)) > len(schedule(1e-3, 1e-3))
    assert schedule(1e-3, 1.0) == ()


def test_the_iteration_maps_singular_values_by_the_polynomial() -> None:
    values = torch.tensor([0.9, 0.5, 0.01], dtype=torch.float64)
    polynomial = (1.7, -0.9, 0.3)
    found = torch.linalg.svdvals(iterate(with_values(values, 5), [polynomial]))
    a, b, c = polynomial
    expected = (a * values + b * values**3 + c * values**5).sort(descending=True).values
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("largest", [1.0, 1.5, 16.0])
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=cases.name)
def test_inverse_roots(largest: float, dtype: torch.dtype) -> None:
    q = orthonormal(5, 5)
    r = gram((q * torch.linspace(1, largest, 5).double().sqrt()).mT)
    root = (q / torch.linspace(1, largest, 5).double().sqrt()) @ q.mT
    found = inverse_root(r.to(dtype), largest=largest)
    torch.testing.assert_close(found, root.to(dtype), atol=64 * torch.finfo(dtype).eps, rtol=0)


def test_ten_steps_in_bfloat16_do_not_diverge() -> None:
    """A value a little outside of a polynomial's range must not be thrown further out."""
    x = torch.randn(20_000, 5, 4).bfloat16()
    x = x / (1.01 * torch.linalg.matrix_norm(x.float(), keepdim=True)).bfloat16()
    result = iterate(x, (*POLAR_EXPRESS, *POLAR_EXPRESS[-1:] * 2)).double()
    assert bool(torch.isfinite(result).all())
    assert float(torch.linalg.matrix_norm(result, 2).max()) <= 1.02
