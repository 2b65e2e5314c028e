"""The front door `steepest` keeps shape and dtype, chooses a solver and refuses bad arguments."""

from __future__ import annotations

import itertools
import math

import cases
import pytest
import torch
from broken_solver import Broken
from convex import problem_of
from long_tests import mostly_long
from modular_manifolds_bench.baselines import ADMM, SPEL, DualAscent, Lyapunov

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, ShapeError, UnsupportedPairError
from modular_manifolds.solvers import TABLE, SkewSign, find_pair, find_solver, select
from modular_manifolds.solvers.solution import Status


def test_rows_are_stepped_whatever_their_sizes() -> None:
    """Oblique × RowRMS: each row of the gradient counts by its direction alone."""
    oblique = mm.Oblique()
    w, g = oblique.random((5, 4)), torch.randn(5, 4)
    sizes = torch.tensor([2.0**-90, 2.0**-30, 1.0, 2.0**30, 2.0**90]).unsqueeze(-1)
    expected = mm.steepest(oblique, mm.RowRMS(), w, g).direction
    found = mm.steepest(oblique, mm.RowRMS(), w, sizes * g).direction
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("case", mostly_long(cases.SOLVERS, usual=cases.is_usual), ids=cases.name)
def test_steepest_keeps_shape_and_dtype(case: cases.SolverCase) -> None:
    shapes: tuple[tuple[int, ...], ...] = ((5, 3), (4,), (2, 3, 2))
    dtypes = (torch.float64, torch.float32, torch.bfloat16)
    for shape, dtype in itertools.product(shapes, dtypes):
        if not cases.fits(case.manifold, shape):
            continue
        w, g = case.manifold.random(shape, dtype=dtype), torch.randn(shape).to(dtype)
        found = mm.steepest(case.manifold, case.norm, w, g, solver=case.solver)
        with cases.Trying(shape, dtype):
            assert found.direction.shape == shape
            assert found.direction.dtype == dtype
            assert found.gap.shape == shape[:-2]


@pytest.mark.parametrize(
    "case", [c for c in cases.SOLVERS if cases.fits(c.manifold, (5,))], ids=cases.name
)
def test_a_vector_is_a_column(case: cases.SolverCase) -> None:
    w = case.manifold.random((5, 1), dtype=torch.float64)
    g = torch.randn(5, 1, dtype=torch.float64)
    column = mm.steepest(case.manifold, case.norm, w, g, solver=case.solver)
    vector = mm.steepest(case.manifold, case.norm, w[:, 0], g[:, 0], solver=case.solver)
    # A vector's matrix has strides of its own, which a BLAS may sum in another order.
    close = math.sqrt(torch.finfo(w.dtype).eps)
    torch.testing.assert_close(vector.direction, column.direction[:, 0], rtol=0, atol=close)


@pytest.mark.parametrize("case", cases.SOLVERS, ids=cases.name)
def test_select_answers_which_and_why(case: cases.SolverCase) -> None:
    choice = select(case.manifold, case.norm, (5, 3), "cpu")
    pair = find_pair(case.manifold, case.norm)
    assert choice.solver == pair.solvers[0]
    assert str(choice).startswith(f"{case.manifold} × {case.norm}: {choice.solver.name}, because ")
    # One default for all shapes and devices; the plan is for one of each.
    elsewhere = select(case.manifold, case.norm, (5, 3), "cuda:1")
    assert elsewhere.solver == select(case.manifold, case.norm).solver == choice.solver
    assert choice.plan == choice.solver.plan(case.manifold, case.norm, (5, 3), torch.float32, "cpu")
    assert f" Plan for 5×3 in float32 on cpu: {choice.plan}." in str(choice)
    assert f" Plan for 5×3 in float32 on cuda: {elsewhere.plan}." in str(elsewhere)
    for name in pair.names:
        assert name in str(choice)
    if case.solver in pair.solvers:
        assert find_solver(case.manifold, case.norm, case.solver.name) is case.solver
    assert find_solver(case.manifold, case.norm, case.solver) is case.solver


def test_the_default_for_manifold_muon_is_the_closed_form() -> None:
    first = (
        "Stiefel × Spectral: skew-sign, because the steepest direction is −msign(G Wᵀ − W Gᵀ) W, and its gap is "
        "known in advance."
    )
    assert str(select(mm.Stiefel(), mm.Spectral())) == first
    for shape in ((4, 4), (7, 5, 4), (3, 9)):
        text = str(select(mm.Stiefel(), mm.Spectral(), shape))
        assert text.startswith(f"{first} Plan for {'×'.join(map(str, shape))} in float32 on cpu: ")


def test_a_pair_without_solver_lists_those_with_one() -> None:
    w = mm.Sphere().random((3, 2))
    for call in (
        lambda: select(mm.Sphere(), mm.RowRMS()),
        lambda: mm.steepest(mm.Sphere(), mm.RowRMS(), w, w),
        lambda: mm.Linear(2, 3, manifold=mm.Sphere(), norm=mm.RowRMS()),
    ):
        with pytest.raises(UnsupportedPairError) as caught:
            call()
        for manifold, norm in TABLE:
            assert f"{manifold.__name__} × {norm.__name__}" in str(caught.value)
        assert caught.value.seen == "Sphere × RowRMS"


def test_bad_arguments_are_refused_in_words() -> None:
    w, g = problem_of(mm.Stiefel(), (5, 3))
    with pytest.raises(
        ShapeError,
        match=r"steepest\(gradient\) must have the shape of the point, \(5, 3\), got \(3, 5\)",
    ):
        mm.steepest(mm.Stiefel(), mm.Spectral(), w, g.mT)
    with pytest.raises(ShapeError, match="without empty dimensions"):
        select(mm.Stiefel(), mm.Spectral(), (0, 3))
    for device in ("gpu", "cuda:-1", None):
        with pytest.raises(ArgumentError, match=r"select\(device\) must be a device that torch"):
            select(mm.Stiefel(), mm.Spectral(), (4, 3), device)  # pyright: ignore[reportArgumentType]
    for solver in ("adam", Broken()):
        with pytest.raises(
            ArgumentError,
            match="solver must be 'auto' or one of skew-sign for Stiefel × Spectral, got",
        ):
            mm.steepest(mm.Stiefel(), mm.Spectral(), w, g, solver=solver)
    for solver in (SkewSign(), Lyapunov(), DualAscent(), ADMM(), SPEL()):
        with pytest.raises(
            UnsupportedPairError,
            match=r"manifold must be Stiefel( or FixedGram)? for this solver, got Sphere",
        ):
            solver.solve(mm.Sphere(), mm.Spectral(), w, g, None)


def test_a_dual_of_another_weight_is_refused() -> None:
    for manifold, norm, solver, shape in (
        (mm.Stiefel(), mm.Spectral(), Lyapunov(), (3, 3)),
        (mm.SpectralSphere(), mm.Spectral(), "auto", (1, 2)),
    ):
        w, g = manifold.random((5, 3)), torch.randn(5, 3)
        found = mm.steepest(manifold, norm, w, g, solver=solver)
        assert found.dual is not None
        assert found.dual.shape == shape
        mm.steepest(manifold, norm, w, g, solver=solver, dual=found.dual)
        with pytest.raises(ShapeError, match=r"steepest\(dual\) must have the shape"):
            mm.steepest(manifold, norm, w, g, solver=solver, dual=torch.zeros(4, 4))


def test_the_defaults_converge_where_m_is_just_above_n() -> None:
    stiefel = mm.Stiefel()
    for shape in ((40, 5, 4), (40, 9, 8)):
        w = stiefel.random(shape, dtype=torch.float64)
        g = torch.randn(shape, dtype=torch.float64)
        for point, gradient in zip(w, g, strict=True):
            found = mm.steepest(stiefel, mm.Spectral(), point, gradient)
            assert found.status is Status.CONVERGED
