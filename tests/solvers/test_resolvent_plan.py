"""Manifold Muon by inverses of n×n matrices: its certificate, its feasibility, its range, and its plans."""

from __future__ import annotations

import cases
import pytest
import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.solvers import SkewSign, Status
from modular_manifolds.solvers.resolvent_plan import ResolventPlan
from modular_manifolds.solvers.skew_plan import PolynomialPlan

STIEFEL, SPECTRAL = mm.Stiefel(), mm.Spectral()
KINDS = ("Gaussian", "rank one", "zero columns", "uneven", "tangent in span", "hardly tangent")
SHAPE = (300, 130)


def gradient(kind: str, w: Tensor) -> Tensor:
    g = torch.randn_like(w)
    n = w.shape[-1]
    square = torch.randn(n, n, dtype=w.dtype)
    match kind:
        case "rank one":
            return g[:, :1] @ square[:1]
        case "zero columns":
            return g * (torch.arange(n) % 3 > 0)
        case "uneven":
            return g * torch.logspace(0, -6, n, dtype=w.dtype)
        case "tangent in span":
            return w @ square
        case "hardly tangent":
            return 1e-3 * g + w @ (square + square.mT)
        case _:
            return g


def value(w: Tensor, g: Tensor) -> float:
    """`½ ‖G Wᵀ − W Gᵀ‖_nuc` of tall matrices in float64."""
    w, g = w.double(), g.double()
    basis = torch.linalg.qr(torch.cat((w, g), dim=1))[0]
    w, g = basis.mT @ w, basis.mT @ g
    return float(torch.linalg.svdvals(g @ w.mT - w @ g.mT).sum() / 2)


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=cases.name)
@pytest.mark.parametrize("kind", KINDS)
def test_the_gap_is_a_bound_and_the_direction_feasible(kind: str, dtype: torch.dtype) -> None:
    w = STIEFEL.random(SHAPE, dtype=dtype)
    g = gradient(kind, w)
    found = mm.steepest(STIEFEL, SPECTRAL, w, g)
    a = found.direction.double()
    assert found.status is Status.CONVERGED
    # The tangent part of one gradient is a thousandth, and the rounding so many times larger.
    slack = 1e3 * torch.finfo(dtype).eps if kind == "hardly tangent" else 1e-6
    assert 1 + float((g.double() * a).sum()) / value(w, g) <= float(found.gap) + slack
    assert float(torch.linalg.matrix_norm(a, 2)) <= 1 + 1e-5
    along_w = w.double().mT @ a
    assert float((along_w + along_w.mT).abs().max()) <= 5e-4


def test_one_plan_suffices_for_gradients_of_low_rank() -> None:
    w = STIEFEL.random(SHAPE)
    for kind in ("rank one", "zero columns"):
        found = mm.steepest(STIEFEL, SPECTRAL, w, gradient(kind, w))
        assert found.iterations == 1
        assert float(found.gap) <= 5e-3


@pytest.mark.parametrize("small", [3e-3, 3e-4, 5e-5])
def test_one_plan_is_honest_about_singular_values_below_its_floor(small: float) -> None:
    w = STIEFEL.random(SHAPE, dtype=torch.float64)
    u, _ = torch.linalg.qr(torch.randn(130, 130, dtype=torch.float64))
    pairs = [torch.tensor([[0.0, -s], [s, 0.0]]) for s in (1.0, *[small] * 64)]
    g = w @ u @ torch.block_diag(*pairs).double() @ u.mT
    found = mm.steepest(STIEFEL, SPECTRAL, w, g, solver=SkewSign(max_iterations=1))
    short = 1 + float((g * found.direction).sum()) / value(w, g)
    assert short <= float(found.gap) <= 3 * short + 3e-3


def test_a_second_plan_has_a_lower_floor_and_a_third_has_polynomials_in_float64() -> None:
    plan = SkewSign().plan(STIEFEL, SPECTRAL, SHAPE, torch.float32, "cpu")
    assert isinstance(plan, ResolventPlan)
    second = plan.deeper(0.04)
    assert isinstance(second, ResolventPlan)
    assert second.floor == pytest.approx(plan.floor / 8)
    third = second.deeper(0.02)
    assert isinstance(third, PolynomialPlan)
    assert (third.dtype, third.attempt) == (torch.float64, 3)
    assert plan.deeper(float("nan")) is None


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_gradients_of_any_size_give_the_same_direction(scale: float) -> None:
    w, g = STIEFEL.random(SHAPE), torch.randn(SHAPE)
    found = mm.steepest(STIEFEL, SPECTRAL, w, scale * g)
    wanted = mm.steepest(STIEFEL, SPECTRAL, w, g).direction * (scale != 0)
    torch.testing.assert_close(found.direction, wanted, rtol=0, atol=1e-5)
    assert found.status is Status.CONVERGED


def test_a_gradient_without_a_tangent_part_gives_no_direction() -> None:
    w = STIEFEL.random(SHAPE)
    square = torch.randn(SHAPE[1], SHAPE[1])
    found = mm.steepest(STIEFEL, SPECTRAL, w, w @ (square + square.mT))
    assert not found.direction.any()
    assert float(found.gap) == 0


def test_a_stack_and_a_wide_matrix_are_solved_as_single_tall_ones() -> None:
    w, g = STIEFEL.random((2, *SHAPE)), torch.randn(2, *SHAPE)
    single = torch.stack(
        [mm.steepest(STIEFEL, SPECTRAL, *each).direction for each in zip(w, g, strict=True)]
    )
    stacked = mm.steepest(STIEFEL, SPECTRAL, w, g)
    assert stacked.gap.shape == (2,)
    torch.testing.assert_close(stacked.direction, single, rtol=0, atol=1e-5)
    wide = mm.steepest(STIEFEL, SPECTRAL, w.mT, g.mT).direction
    torch.testing.assert_close(wide.mT, single, rtol=0, atol=1e-5)


def test_small_tolerances_and_accelerators_keep_the_polynomials() -> None:
    for solver, device in ((SkewSign(tolerance=1e-3), "cpu"), (SkewSign(), "cuda")):
        plan = solver.plan(STIEFEL, SPECTRAL, SHAPE, torch.float32, device)
        assert isinstance(plan, PolynomialPlan)
    assert "inverts" in str(SkewSign().plan(STIEFEL, SPECTRAL, SHAPE, torch.float32, "cpu"))
