"""Manifold Muon's closed form: its value, its certificate, and the polynomials and products it is made of."""

from __future__ import annotations

import cases
import numpy as np
import pytest
import torch
from long_tests import mostly_long
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.linalg.newton_schulz import schedule
from modular_manifolds.linalg.polar_express import (
    BF16_MARGIN,
    FLOAT32_MARGIN,
    RoundingMargin,
    extended,
    mapped,
    polar_express,
)
from modular_manifolds.linalg.products import (
    commuting,
    gram_product,
    multiply,
    onednn_product,
    plus_product,
)
from modular_manifolds.linalg.skew_newton_schulz import skew_iterate
from modular_manifolds.solvers import SkewSign, Status

STIEFEL, SPECTRAL = mm.Stiefel(), mm.Spectral()
KINDS = ("Gaussian", "rank two", "uneven", "nearly normal")


def gradient(kind: str, w: Tensor) -> Tensor:
    g = torch.randn_like(w)
    small = min(w.shape)
    match kind:
        case "rank two":
            return g[:, :2] @ torch.randn(2, w.shape[1], dtype=w.dtype)
        case "uneven":
            return g * torch.logspace(0, -6, w.shape[1], dtype=w.dtype)
        case "nearly normal":
            c = torch.randn(small, small, dtype=w.dtype)
            return 1e-3 * g + (w @ (c + c.mT) if w.shape[1] == small else (c + c.mT) @ w)
        case _:
            return g


def value(w: Tensor, g: Tensor) -> float:
    """`½ ‖G Wᵀ − W Gᵀ‖_nuc` of tall matrices in float64."""
    w, g = (x.double() if x.shape[0] >= x.shape[1] else x.double().mT for x in (w, g))
    # Its rank is at most 2n: what matters is in the span of W and G.
    basis = torch.linalg.qr(torch.cat((w, g), dim=1))[0]
    w, g = basis.mT @ w, basis.mT @ g
    return float(torch.linalg.svdvals(g @ w.mT - w @ g.mT).sum() / 2)


@pytest.mark.parametrize(
    "shape", [(5, 1), (4, 4), (9, 9), (7, 5), (12, 4), (3, 11)], ids=cases.name
)
def test_the_steepest_descent_is_half_a_nuclear_norm(shape: tuple[int, int]) -> None:
    w = STIEFEL.random(shape, dtype=torch.float64)
    g = torch.randn(shape, dtype=torch.float64)
    found = mm.steepest(STIEFEL, SPECTRAL, w, g, solver=SkewSign(tolerance=1e-9))
    assert found.status is Status.CONVERGED
    assert -float((g * found.direction).sum()) == pytest.approx(value(w, g), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=cases.name)
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
@pytest.mark.parametrize(
    "shape", [(40, 36), (64, 20), (20, 64), (120, 20), (9, 9), (30, 7)], ids=cases.name
)
def test_the_gap_is_a_bound_for_gradients_of_every_kind(
    shape: tuple[int, int], tolerance: float, dtype: torch.dtype, kind: str
) -> None:
    w = STIEFEL.random(shape, dtype=dtype)
    g = gradient(kind, w)
    check(w, g, kind, SkewSign(tolerance=tolerance))


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_directions_of_gradients_of_low_rank_are_no_longer_than_one(tolerance: float) -> None:
    """In float32 the directions that G hardly has are rounding: one gradient in a hundred shows what they may cost."""
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        w = STIEFEL.random((120, 20), generator=generator)
        g = torch.randn(120, 2, generator=generator) @ torch.randn(2, 20, generator=generator)
        a = mm.steepest(STIEFEL, SPECTRAL, w, g, solver=SkewSign(tolerance=tolerance)).direction
        assert float(torch.linalg.matrix_norm(a.double(), 2)) <= 1 + 1e-4, seed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", mostly_long([(270, 700), (520, 520)], usual=2), ids=cases.name)
def test_the_gap_is_a_bound_in_half_precision(shape: tuple[int, int], kind: str) -> None:
    """Γ of 512 columns and more is in bfloat16 if the machine is fast in it, and in float32 if not."""
    w = STIEFEL.random(shape)
    check(w, gradient(kind, w), kind, SkewSign())


def check(w: Tensor, g: Tensor, kind: str, solver: SkewSign) -> None:
    found = mm.steepest(STIEFEL, SPECTRAL, w, g, solver=solver)
    a = found.direction.double()
    short = 1 + float((g.double() * a).sum()) / value(w, g)
    assert found.status is Status.CONVERGED, found.gap
    # Of a nearly normal gradient the tangent part is a thousandth, and so many times larger is the rounding.
    slack = 1e3 * torch.finfo(w.dtype).eps if kind == "nearly normal" else 1e-6
    assert short <= float(found.gap) + slack
    assert float(torch.linalg.matrix_norm(a, 2)) <= 1 + 1e-4
    along = (w.double().mT @ a) if w.shape[0] >= w.shape[1] else (w.double() @ a.mT)
    assert float((along + along.mT).abs().max()) <= 3e-4


def test_a_radius_and_the_rms_norm_change_the_length_only() -> None:
    w, g = STIEFEL.random((6, 20)), torch.randn(6, 20)
    plain = mm.steepest(STIEFEL, SPECTRAL, w, g).direction
    radius = mm.Stiefel(radius=2.5)
    torch.testing.assert_close(mm.steepest(radius, SPECTRAL, 2.5 * w, g).direction, plain)
    scaled = mm.steepest(radius, mm.RMSOperator(), 2.5 * w, g).direction
    torch.testing.assert_close(scaled, (6 / 20) ** 0.5 * plain)


@pytest.mark.parametrize("room", [FLOAT32_MARGIN, BF16_MARGIN])
@pytest.mark.parametrize("floor", [1e-6, 1e-3, 0.02, 0.3, 0.9995])
def test_a_run_of_polynomials_reaches_what_it_says(floor: float, room: RoundingMargin) -> None:
    """On a fine grid of its range."""
    for steps in range(1, 9):
        run, off = polar_express(floor, steps, room)
        x = np.geomspace(floor, 1.0, 20_001)
        for a, b, c in run:
            x = a * x + b * x**3 + c * x**5
        assert len(run) == steps
        assert np.abs(x - 1).max() <= off + 1e-7
        assert off <= 1 - floor


@pytest.mark.parametrize("room", [FLOAT32_MARGIN, BF16_MARGIN])
@pytest.mark.parametrize("accuracy", [0.045, 1e-6])
def test_a_run_goes_on_to_a_lower_floor(accuracy: float, room: RoundingMargin) -> None:
    """Further polynomials reach singular values below the first floor, and keep those that were reached."""
    run, _ = polar_express(0.01, 4, room)
    for floor in (0.01 / 3, 0.01 / 9):
        longer = extended(run, floor, accuracy, room)
        assert longer[: len(run)] == run
        assert len(run) < len(longer) <= len(run) + (2 if accuracy > 0.01 else 4)
        run = longer
        assert np.abs(mapped(run, np.geomspace(floor, 1.0, 20_001)) - 1).max() <= accuracy + 1e-7
    assert extended(run, floor, accuracy, room) == run


def test_one_matrix_of_small_singular_values_lowers_the_floor_of_the_whole_stack() -> None:
    """Within one solve: it sees them before the last polynomial and goes on from there."""
    w = STIEFEL.random((3, 256, 256))
    g = torch.randn(3, 256, 256)
    u, _ = torch.linalg.qr(torch.randn(256, 256))
    middle = torch.block_diag(*(torch.tensor([[0.0, -s], [s, 0.0]]) for s in (1.0, *[5e-4] * 127)))
    g[1] = u @ middle @ u.mT @ w[1]
    found = mm.steepest(STIEFEL, SPECTRAL, w, g)
    assert found.status is Status.CONVERGED
    assert found.iterations == 1
    for i in range(3):
        assert 1 + float((g[i] * found.direction[i]).sum()) / value(w[i], g[i]) <= found.gap[i]


def test_a_direction_that_the_gradient_lacks_is_not_taken() -> None:
    """Decomposed, rounding has singular vectors too; a step along them would be a random walk."""
    w = STIEFEL.random((30, 7))
    g = torch.randn(30, 1) @ torch.randn(1, 7)
    for scale in (1.0, 1e-3, 1e30):
        a = mm.steepest(STIEFEL, SPECTRAL, w, scale * g).direction
        # Γ = ½(G Wᵀ − W Gᵀ) has rank two, so has msign(Γ) W.
        assert torch.linalg.svdvals(a)[2] < 1e-5
    # What it might have been worth is in the gap, and where that is too much, more digits are.
    assert 0 < float(mm.steepest(STIEFEL, SPECTRAL, w, g).gap) < 1e-3
    tight = mm.steepest(STIEFEL, SPECTRAL, w, g, solver=SkewSign(tolerance=1e-6))
    assert tight.status is Status.CONVERGED
    assert tight.iterations > 1


@pytest.mark.parametrize("small", [3e-3, 1e-3, 1e-4])
def test_one_look_is_honest_about_singular_values_below_the_floor(small: float) -> None:
    w = STIEFEL.random((50, 50), dtype=torch.float64)
    u, _ = torch.linalg.qr(torch.randn(50, 50, dtype=torch.float64))
    pairs = [torch.tensor([[0.0, -s], [s, 0.0]]) for s in (1.0, *[small] * 24)]
    g = u @ torch.block_diag(*pairs).double() @ u.mT @ w
    found = mm.steepest(STIEFEL, SPECTRAL, w, g, solver=SkewSign(max_iterations=1))
    short = 1 + float((g * found.direction).sum()) / value(w, g)
    assert short <= float(found.gap) <= 3 * short + 2e-3
    assert (found.status is Status.CONVERGED) == (float(found.gap) <= 1e-2)


def test_the_first_polynomial_is_the_published_one() -> None:
    """Amsel et al. list it for singular values from 1e-3 on, with a factor of safety that is divided out."""
    (first, *_), _ = polar_express(1e-3, 1, FLOAT32_MARGIN)
    assert first == pytest.approx((8.2872, -23.5959, 17.3004), rel=0.08)


def test_half_precision_turns_no_vectors() -> None:
    """A run that is best without rounding would lose a tenth of this descent."""
    x = torch.randn(512, 512)
    x = x - x.mT
    x_run = schedule(5e-3, 1e-3, half=True)
    omega, _ = skew_iterate(x / x.abs().max(), x_run, half=True)
    assert torch.equal(omega.mT, -omega)
    omega = 1.5 * omega + 0.5 * omega @ omega @ omega
    short = 1 - float((x * omega).sum() / torch.linalg.svdvals(x).sum())
    assert abs(short) <= 2e-3


@pytest.mark.parametrize("size", [129, 513])
def test_products_are_products(size: int) -> None:
    """In every layout, with gradients recorded and without, and where a quarter is left out."""
    a, b = torch.randn(size, 140), torch.randn(140, size)
    views = [(a, b), (a.mT.contiguous().mT, b), (a, b.mT.contiguous().mT)]
    views += [(a.mT.contiguous().mT, b.mT.contiguous().mT), (torch.cat((a, a), 1)[:, :140], b)]
    skew = torch.randn(size, size)
    skew = skew - skew.mT
    for recorded in (True, False):
        with torch.set_grad_enabled(recorded):
            for x, y in views:
                assert_product(multiply(x, y), a, b)
            assert_product(gram_product(b), b.mT, b)
            square = commuting(skew, skew)
            assert_product(square, skew, skew)
            assert_product(commuting(skew, square, sign=-1), skew, square)
            added = plus_product(a.mT, a.mT, skew, factor=-2.0)
            assert_product((a.mT - added) / 2, a.mT, skew)


def assert_product(found: Tensor, a: Tensor, b: Tensor) -> None:
    """That `found` is `A B`, but for the rounding of sums of n products in any order.

    It is below `√n ε` of the lengths of row and column, with a factor that random signs make small. Eight is allowed.
    """
    rows = torch.linalg.vector_norm(a.double(), dim=1).max()
    columns = torch.linalg.vector_norm(b.double(), dim=0).max()
    atol = 8 * a.shape[1] ** 0.5 * torch.finfo(found.dtype).eps * float(rows * columns)
    torch.testing.assert_close(found.double(), a.double() @ b.double(), rtol=0, atol=atol)


def test_onednn_is_offered_only_where_no_derivative_may_be_recorded() -> None:
    a = torch.randn(128, 128)
    assert onednn_product(a, a) is None
    with torch.no_grad():
        offered = onednn_product(a, a)
        assert onednn_product(a[:100], a) is None
        assert onednn_product(a.double(), a.double()) is None
        assert onednn_product(a.expand(2, 128, 128), a) is None
    if offered is None:
        pytest.skip("this build of torch has no oneDNN product for float32 on this processor")
    with torch.no_grad():
        assert_product(offered(a, a), a, a.mT)
