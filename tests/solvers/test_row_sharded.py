"""Steps of tall matrices on blocks of rows: those of the whole matrix, from few sums of n×n matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import cases
import pytest
import torch
from long_tests import mostly_long
from row_blocks import ETA, Meeting, gradient, plan_of, split, stepped, tall
from torch import Tensor
from torch._subclasses import FakeTensorMode
from watched import Watched

import modular_manifolds as mm
from modular_manifolds.linalg.coefficients import Polynomial
from modular_manifolds.linalg.rows import SharedRows
from modular_manifolds.linalg.surroundings import undisturbed
from modular_manifolds.solvers import SkewSign, Status
from modular_manifolds.solvers.row_sharded import RowPlan, row_plan
from modular_manifolds.solvers.row_sharded.muon import MuonRows
from modular_manifolds.solvers.row_sharded.stiefel import StiefelRows

STIEFEL, SPECTRAL = mm.Stiefel(), mm.Spectral()
PAIRS = [
    (manifold, norm)
    for manifold in (mm.Stiefel(), mm.Stiefel(radius=1.7), mm.Euclidean(), mm.SpectralBall(0.9))
    for norm in (SPECTRAL, mm.RMSOperator())
]
SPLITS = [
    ((40, 12), (40,)),
    ((40, 12), (13, 0, 20, 7)),
    ((12, 40), (0, 39, 1)),
    ((15, 12), (4, 11)),
    ((12, 12), (1, 11)),
    ((9, 1), (4, 5)),
    ((2, 3, 30, 7), (10, 20)),
]
"""Shapes and the rows (of a wide matrix, columns) of each process: one process, uneven and empty blocks."""

KINDS = ("Gaussian", "rank two", "uneven", "in the span", "tiny")


def slope(polynomials: Sequence[Polynomial]) -> float:
    """The derivative of the run at zero: how many times it magnifies what is hardly there."""
    return math.prod(a for a, _, _ in polynomials)


def whole_step(plan: RowPlan, manifold: mm.Manifold, norm: mm.Norm, w: Tensor, g: Tensor) -> Tensor:
    """The direction of the solver that holds the whole matrix, with the polynomials of the row plan."""
    if isinstance(plan, StiefelRows):
        return undisturbed(plan.polynomials.solve)(w, g).direction
    return mm.steepest(manifold, norm, w, g).direction


@pytest.mark.parametrize(
    ("pair", "shape", "sizes"),
    mostly_long(((pair, *each) for pair in PAIRS for each in SPLITS), usual=5, several=True),
    ids=str,
)
def test_the_step_is_that_of_the_whole_matrix(
    pair: tuple[mm.Manifold, mm.Norm], shape: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    manifold, norm = pair
    w = manifold.random(shape, dtype=torch.float64)
    plan = plan_of(manifold, norm, w)
    for kind in KINDS if norm is SPECTRAL else KINDS[:1]:
        g = gradient(kind, w)
        found, landed, _ = stepped(plan, w, g, sizes)
        a = whole_step(plan, manifold, norm, w, g)
        torch.testing.assert_close(found.direction, a, rtol=0, atol=1e-9)
        torch.testing.assert_close(landed, manifold.retract(w, ETA * a), rtol=0, atol=1e-9)


def test_the_direction_is_steepest() -> None:
    """That of the closed form by a decomposition, to what the tolerance allows."""
    for shape, sizes in SPLITS[:3]:
        w = STIEFEL.random(shape, dtype=torch.float64)
        g = torch.randn(shape, dtype=torch.float64)
        found, _, _ = stepped(plan_of(STIEFEL, SPECTRAL, w, SkewSign(1e-13)), w, g, sizes)
        x, y = tall(w), tall(g)
        u, _, vh = torch.linalg.svd(y @ x.mT - x @ y.mT)
        rank = min(shape) * 2
        a = -(u[:, :rank] @ vh[:rank]) @ x
        torch.testing.assert_close(tall(found.direction), a, rtol=0, atol=1e-9)


MANIFOLDS = (mm.Stiefel(), mm.Euclidean(), mm.SpectralBall(0.9))
FLOATS = ((each, *sizes, kind) for each, sizes, kind in product(MANIFOLDS, SPLITS[1:5:2], KINDS))


@pytest.mark.parametrize(
    ("manifold", "shape", "sizes", "kind"), mostly_long(FLOATS, usual=3, several=True), ids=str
)
def test_the_step_in_float32_is_off_by_what_the_polynomials_magnify(
    manifold: mm.Manifold, shape: tuple[int, ...], sizes: tuple[int, ...], kind: str
) -> None:
    """Products are off by `√n ε`; the run of polynomials magnifies that by its slope at zero, at most.

    Γ is as long as the tangent part of G, and relative to it the rounding of all of G counts.
    """
    w = manifold.random(shape)
    g = gradient(kind, w)
    plan = plan_of(manifold, SPECTRAL, w)
    found, landed, _ = stepped(plan, w, g, sizes)
    exact = plan_of(manifold, SPECTRAL, w.double())
    a, x, _ = stepped(exact, w.double(), g.double(), sizes)
    assert isinstance(plan, StiefelRows | MuonRows)
    run = plan.polynomials.polynomials if isinstance(plan, StiefelRows) else plan.polynomials
    bound = 4 * torch.finfo(torch.float32).eps * min(shape) ** 0.5 * slope(run)
    assert 1e-5 < bound < 4e-3
    torch.testing.assert_close(found.direction.double(), a.direction, rtol=0, atol=bound)
    torch.testing.assert_close(landed.double(), x, rtol=0, atol=ETA * bound + 2e-6)


def value(w: Tensor, g: Tensor) -> float:
    """`½ ‖G Wᵀ − W Gᵀ‖_nuc` of one matrix in float64."""
    w, g = tall(w.double()), tall(g.double())
    return float(torch.linalg.svdvals(g @ w.mT - w @ g.mT).sum() / 2)


GAPS = ((*each, dtype, kind) for each, dtype, kind in product(SPLITS[:5], cases.DTYPES, KINDS))


@pytest.mark.parametrize(
    ("shape", "sizes", "dtype", "kind"), mostly_long(GAPS, usual=3, several=True), ids=str
)
def test_the_gap_is_a_bound_and_small(
    shape: tuple[int, int], sizes: tuple[int, ...], dtype: torch.dtype, kind: str
) -> None:
    w = STIEFEL.random(shape, dtype=dtype)
    g = gradient(kind, w)
    found, landed, _ = stepped(plan_of(STIEFEL, SPECTRAL, w), w, g, sizes)
    a, g = found.direction.double(), g.double() / g.double().abs().max()
    g = g / g.norm()
    assert found.status is Status.CONVERGED
    assert float(found.gap) <= 1e-2
    short = 1 + float((g * a).sum()) / value(w, g)
    assert short <= float(found.gap) + 1e-6
    assert float(torch.linalg.matrix_norm(a, 2)) <= 1 + 1e-4
    along = tall(w.double()).mT @ tall(a)
    assert float((along + along.mT).abs().max()) <= 3e-4
    assert float(STIEFEL.residual(landed)) <= 1e-6


@pytest.mark.parametrize("share", [1e-2, 1e-3])
def test_the_gap_in_float32_is_honest_if_little_of_the_gradient_is_tangent(share: float) -> None:
    """The direction is tangent to half the digits. Its tangent part descends as the gap says."""
    w = STIEFEL.random((60, 12))
    c = torch.randn(12, 12)
    g = w @ (c + c.mT)
    g = g / g.norm() + share * torch.randn(60, 12) / 27
    found, _, _ = stepped(plan_of(STIEFEL, SPECTRAL, w), w, g, (20, 40))
    u, _, vh = torch.linalg.svd(w.double(), full_matrices=False)
    q, a = u @ vh, found.direction.double()
    along = q.mT @ a
    a = a - q @ (along + along.mT) / 2
    a = a / max(1.0, float(torch.linalg.matrix_norm(a, 2)))
    short = 1 + float((g.double() * a).sum()) / value(w, g)
    assert 0 <= short <= float(found.gap)
    assert float(found.gap) <= 2e-3 + 2e-5 / share


def test_small_singular_values_cost_no_further_sum() -> None:
    """The gap of the first look is too large, so Ω is computed again from the same sums."""
    n = 96
    w = STIEFEL.random((n, n), dtype=torch.float64)
    pairs = [torch.tensor([[0.0, -s], [s, 0.0]]) for s in (1.0, *[1e-3] * (n // 2 - 1))]
    u, _ = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))
    g = u @ torch.block_diag(*pairs).double() @ u.mT @ w
    for tolerance in (1e-2, 1e-5):
        plan = plan_of(STIEFEL, SPECTRAL, w, SkewSign(tolerance=tolerance))
        found, _, meeting = stepped(plan, w, g, (20, 76))
        assert found.status is Status.CONVERGED
        assert tolerance < 1e-2 or found.iterations > 1
        assert 1 + float((g * found.direction).sum()) / value(w, g) <= float(found.gap) <= tolerance
        assert len(meeting.sums) == 4
    assert plan.deeper(1.0) is not None


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]} × {pair[1]}")
def test_sums_are_few_and_as_planned(pair: tuple[mm.Manifold, mm.Norm]) -> None:
    """At most three of n×n, whatever the gradient; the scale is one number more."""
    n = 20
    for dtype in (torch.float32, torch.float64):
        w = pair[0].random((50, n), dtype=dtype)
        plan = plan_of(*pair, w)
        for kind in ("Gaussian", "rank two"):
            _, _, meeting = stepped(plan, w, gradient(kind, w), (20, 30))
            scale, *sums = [(math.prod(shape), each.itemsize) for shape, each in meeting.sums]
            assert scale == (1, 8)
            assert tuple(sums) == plan.sums
            assert len(sums) <= 3
            assert all(count <= n**2 + 1 for count, _ in sums)
        assert plan.bytes_per_step == sum(count * size for count, size in plan.sums)
    # In float32: C, E as a triangle in float64, and a triangle.
    if isinstance(pair[0], mm.Stiefel):
        plan = plan_of(*pair, pair[0].random((50, n)))
        assert plan.bytes_per_step == 4 * (n**2 + 1) + 8 * n * (n + 1) // 2 + 4 * n * (n + 1) // 2


def test_the_largest_entry_saves_the_first_sum() -> None:
    w, g = STIEFEL.random((30, 6)), torch.randn(30, 6)
    plan, meeting = plan_of(STIEFEL, SPECTRAL, w), Meeting(2)
    blocks = list(zip(split(w, (10, 20), -2), split(g, (10, 20), -2), strict=True))
    largest = g.abs().amax().reshape(1, 1)
    found = meeting.run(lambda rank, rows: plan.solve(*blocks[rank], rows, largest=largest))
    assert len(meeting.sums) == 2
    expected, _, _ = stepped(plan, w, g, (10, 20))
    a = torch.cat([each.direction for each in found])
    torch.testing.assert_close(a, expected.direction, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]} × {pair[1]}")
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=cases.name)
def test_a_zero_gradient_does_not_move_and_nan_on_one_process_is_nan_on_all(
    pair: tuple[mm.Manifold, mm.Norm], dtype: torch.dtype
) -> None:
    w = pair[0].random((40, 12), dtype=dtype)
    plan, g = plan_of(*pair, w), torch.zeros(40, 12, dtype=dtype)
    found, landed, _ = stepped(plan, w, g, (13, 20, 7))
    assert not found.direction.any()
    assert float(found.gap) == 0
    torch.testing.assert_close(landed, w, rtol=0, atol=8 * torch.finfo(dtype).eps)
    g[39, 0] = torch.nan
    found, _, _ = stepped(plan, w, g, (13, 20, 7))
    assert bool(found.gap.isnan())
    assert found.status is not Status.CONVERGED
    assert all(bool(rows.isnan().any()) for rows in found.direction.split((13, 20, 7)))


@pytest.mark.parametrize("steps", mostly_long([200, 1000], usual=2))
def test_points_stay_on_the_manifold_for_many_steps(steps: int) -> None:
    """As close as the points of one process."""
    w = STIEFEL.random((24, 6))
    gradients = [torch.randn(24, 6) * (torch.randn(24, 6) > 2) for _ in range(steps)]
    sizes, meeting = (9, 15), Meeting(2)
    plan = plan_of(STIEFEL, SPECTRAL, w)
    points = split(w, sizes, -2)

    def walk(rank: int, rows: SharedRows) -> Tensor:
        x = points[rank]
        for g in gradients:
            a = plan.solve(x, g.split(sizes, dim=-2)[rank], rows).direction
            x = plan.retract(x, ETA * a, ETA, rows)
        return x

    x = torch.cat(meeting.run(walk), dim=-2)
    assert float(STIEFEL.residual(x).max()) <= 4 * torch.finfo(torch.float32).eps
    assert float((x - w).norm()) > 1


class Watch(Watched):
    """Refuses to read numbers."""

    def see(self, func: Any, args: tuple[Any, ...]) -> None:
        del args
        names = ("_local_scalar_dense", "_linalg_svd", "_linalg_eigh", "nonzero")
        assert not any(name in str(func) for name in names), func


@pytest.mark.parametrize("pair", PAIRS[::2], ids=lambda pair: f"{pair[0]} × {pair[1]}")
def test_nothing_is_read_on_an_accelerator(pair: tuple[mm.Manifold, mm.Norm]) -> None:
    """And the floor of the polynomials is lower there, as no gap is read."""
    shape, rows = (3, 700, 40), SharedRows(lambda x: x)
    plan = row_plan(*pair, shape, torch.float32, "cuda")
    assert plan is not None
    assert str(plan)
    with FakeTensorMode(), Watch():
        for count in (300, 0):
            w, g = (torch.empty((3, count, 40), device="cuda") for _ in range(2))
            found = undisturbed(plan.solve)(w, g, rows)
            landed = undisturbed(plan.retract)(w, found.direction, 0.1, rows)
            assert (landed.shape, landed.device.type) == (w.shape, "cuda")
    if isinstance(plan, StiefelRows):
        at_home = plan_of(*pair, torch.empty(shape))
        assert isinstance(at_home, StiefelRows)
        assert plan.polynomials.floor < at_home.polynomials.floor


@pytest.mark.parametrize(
    ("manifold", "norm", "shape", "dim"),
    [
        (STIEFEL, SPECTRAL, (40, 12), -1),
        (STIEFEL, SPECTRAL, (12, 40), -2),
        (STIEFEL, mm.Frobenius(), (40, 12), -2),
        (mm.Euclidean(), mm.RowRMS(), (40, 12), -2),
        (mm.SpectralSphere(), SPECTRAL, (40, 12), -2),
        (mm.SpectralBall(), mm.Frobenius(), (40, 12), -2),
    ],
)
def test_other_weights_have_no_row_plan(
    manifold: mm.Manifold, norm: mm.Norm, shape: tuple[int, int], dim: int
) -> None:
    assert row_plan(manifold, norm, shape, torch.float32, "cpu", dim=dim) is None
