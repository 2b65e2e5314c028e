"""Zolotarev's rational functions: their values on plain numbers and on a skew matrix, and the bound on what they leave."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from modular_manifolds.linalg.rational_gap import RationalGap
from modular_manifolds.linalg.skew_resolvent import reduced_sign
from modular_manifolds.linalg.zolotarev import RationalSign


@pytest.mark.parametrize("floor", [1e-5, 3e-4, 0.05, 0.7])
@pytest.mark.parametrize("terms", [1, 2, 5, 9])
def test_values_lie_between_the_lowest_and_one(floor: float, terms: int) -> None:
    function = RationalSign.of_degree(floor, terms)
    values = function(np.geomspace(floor, 1.0, 100_003))
    below = function(np.geomspace(1e-9, floor, 1_003))
    assert values.max() <= 1 + 1e-6
    assert values.min() >= function.lowest - 1e-6
    assert below.max() <= 1 + 1e-6
    assert np.all(np.diff(below) >= 0) or function.lowest > 0.5


def test_one_pole_is_the_published_function() -> None:
    """Nakatsukasa, Bai and Gygi give its coefficients in closed form: a, b = (a − 1)²/4 and c = a + b − 1."""
    floor = 1e-3
    d = (4 * (1 - floor**2) / floor**4) ** (1 / 3)
    a = (1 + d) ** 0.5 + (8 - 4 * d + 8 * (2 - floor**2) / (floor**2 * (1 + d) ** 0.5)) ** 0.5 / 2
    b = (a - 1) ** 2 / 4
    x = np.geomspace(1e-5, 1.0, 101)
    published = x * (a + b * x**2) / (1 + (a + b - 1) * x**2)
    np.testing.assert_allclose(RationalSign.of_degree(floor, 1)(x), published, rtol=1e-6)


def test_the_degree_is_the_lowest_that_suffices() -> None:
    function = RationalSign.within(1e-3, 1e-2)
    assert function.lowest >= 0.99
    assert RationalSign.of_degree(1e-3, len(function.poles) - 1).lowest < 0.99


def problem(sizes: Tensor, *, rows: int = 90, columns: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """S, a matrix with the Gram matrix RᵀR, and X, in float64."""
    skew = torch.randn(columns, columns, dtype=torch.float64) * sizes
    skew = skew - skew.mT
    off_w = torch.randn(rows, columns, dtype=torch.float64) * sizes
    factor = torch.linalg.cholesky(off_w.mT @ off_w, upper=True)
    zero = torch.zeros_like(factor)
    x = torch.cat((torch.cat((skew, -factor.mT), 1), torch.cat((factor, zero), 1)))
    return skew, off_w, x


def decomposed(x: Tensor, size: float, function: RationalSign) -> Tensor:
    """`h(X/s)` by a singular value decomposition."""
    u, sigma, vh = torch.linalg.svd(x)
    return (u * torch.from_numpy(function((sigma / size).numpy()))) @ vh


@pytest.mark.parametrize("scale", [1.0, 1e-12])
def test_inverses_of_n_columns_give_the_function_of_a_matrix_of_2n(scale: float) -> None:
    n = 12
    skew, off_w, x = problem(scale * torch.logspace(0, -2, n, dtype=torch.float64))
    function = RationalSign.within(1e-4, 1e-3)
    found = reduced_sign(skew, off_w, function)
    size = float(found.size)
    assert size == pytest.approx(float(torch.linalg.matrix_norm(x @ x)) ** 0.5)
    wanted = decomposed(x, size, function)[:, :n]
    torch.testing.assert_close(found.top, wanted[:n], rtol=0, atol=1e-9)
    torch.testing.assert_close(x[n:, :n] @ found.bottom, wanted[n:], rtol=0, atol=1e-9)
    sigma = torch.linalg.svdvals(x).numpy() / size
    assert float(found.total) == pytest.approx(size * float((sigma * function(sigma)).sum()))
    for trace, pole in zip(found.traces, function.poles[-2:], strict=True):
        assert float(trace) == pytest.approx(float((1 / (1 + (pole * sigma) ** 2)).sum()))


def test_a_stack_is_solved_matrix_by_matrix() -> None:
    problems = [problem(torch.logspace(0, -k, 12, dtype=torch.float64)) for k in range(3)]
    function = RationalSign.within(1e-3, 1e-2)
    skews, offs, _ = (torch.stack(each) for each in zip(*problems, strict=True))
    stacked = reduced_sign(skews, offs, function)
    for i, (skew, off_w, _) in enumerate(problems):
        alone = reduced_sign(skew, off_w, function)
        torch.testing.assert_close(stacked.top[i], alone.top)
        torch.testing.assert_close(stacked.bottom[i], alone.bottom)
        torch.testing.assert_close(stacked.traces[1][i], alone.traces[1])


@pytest.mark.parametrize("floor", [1e-4, 1e-2])
@pytest.mark.parametrize("distance", [1e-3, 0.3])
def test_the_bound_holds_for_every_singular_value(floor: float, distance: float) -> None:
    """It is a sum over singular values, so it holds for all spectra if it does for each value."""
    function = RationalSign.within(floor, distance)
    bound = RationalGap.of(function)
    values = np.concatenate((np.geomspace(1e-9, 1.0, 50_021), [0.0]))
    before, last = (
        torch.from_numpy(1 / (1 + (pole * values) ** 2)) for pole in (0.0, *function.poles)[-2:]
    )
    sigma = torch.from_numpy(values)
    mapped = torch.from_numpy(function(values))
    one = torch.tensor(1.0, dtype=torch.float64)
    for pair in bound.pairs:
        single = RationalGap(bound.relative, (pair,))
        assert bool((single.nuclear_norm(sigma * mapped, one, before, last) >= sigma - 1e-12).all())


def test_values_that_are_nearly_zero_cost_nearly_nothing() -> None:
    """A gradient of rank two in 200 columns: all but four singular values are rounding."""
    function = RationalSign.within(3e-4, 3e-3)
    bound = RationalGap.of(function)
    sigma = torch.cat((torch.full((4,), 0.7), torch.full((396,), 1e-8))).double()
    last, before = (1 / (1 + (pole * sigma) ** 2) for pole in function.poles[:-3:-1])
    total = (sigma * torch.from_numpy(function(sigma.numpy()))).sum()
    one = torch.tensor(1.0, dtype=torch.float64)
    nuclear = bound.nuclear_norm(total, one, before.sum(), last.sum())
    assert 1 - float(total / nuclear) <= bound.relative + 5e-4
