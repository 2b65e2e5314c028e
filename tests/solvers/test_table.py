"""The table of pairs: rows are data, a new manifold is one of them, and baselines are asked for by name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch
from modular_manifolds_bench.baselines import BASELINES
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds import testing
from modular_manifolds.errors import ArgumentError, ShapeError, UnsupportedPairError
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.solvers import TABLE, NormSteepest, Solver, TangentGradient, find_pair


@dataclass(frozen=True)
class Symmetric(Manifold):
    """Matrices with `W = Wᵀ`: a linear space, as small as a manifold can be written."""

    compact = False
    fixed_size = False

    def check_shape(self, shape: Sequence[int], *, argument: str = "shape") -> None:
        super().check_shape(shape, argument=argument)
        if len(shape) < 2 or shape[-1] != shape[-2]:
            raise ShapeError(argument, "must be square", tuple(shape), "Pass (n, n).")

    def _project(self, x: Tensor) -> Tensor:
        return (x + x.mT) / 2

    def _tangent(self, point: Tensor, vector: Tensor) -> Tensor:
        del point
        return (vector + vector.mT) / 2

    def _retract(self, point: Tensor, step: Tensor) -> Tensor:
        return self._project(point + step)

    def _residual(self, point: Tensor) -> Tensor:
        off = torch.linalg.matrix_norm(point - point.mT)
        return off / torch.linalg.matrix_norm(point).clamp_min(1.0)

    def _largest_singular_value(self, shape: tuple[int, int]) -> float:
        del shape
        return math.inf


@dataclass(frozen=True)
class Rotations(mm.Stiefel):
    """A subclass of a manifold that is in the table."""


@pytest.fixture(autouse=True)
def rows_kept() -> Iterator[None]:
    """Rows that a test adds are taken out again."""
    before = set(TABLE)
    yield
    for added in set(TABLE) - before:
        del TABLE[added]


SHAPES = [(1, 1), (4, 4), (2, 3, 5, 5)]


def test_a_new_manifold_is_one_class_and_one_row() -> None:
    """It passes the laws, weights step on it, and tables know its method."""
    row = mm.solvers.register(Symmetric, mm.Frobenius, TangentGradient(), method="symmetric steps")
    assert row in mm.solvers.pairs()
    assert mm.solvers.pairs()[-1].method == "symmetric steps"
    assert TABLE[Symmetric, mm.Frobenius] == (TangentGradient(),)
    for shape in SHAPES:
        sample = testing.Sample(shape)
        testing.check_manifold(Symmetric(), sample)
        testing.check_solver(TangentGradient(), Symmetric(), mm.Frobenius(), sample)
    choice = mm.solvers.select(Symmetric(), mm.Frobenius(), (4, 4))
    assert str(choice).startswith("Symmetric × Frobenius: tangent-gradient, because ")

    net = mm.Linear(4, 4, manifold=Symmetric(), norm=mm.Frobenius())
    opt = mm.SteepestDescent(net, lr=0.1)
    before = net.weight.detach().clone()
    net.weight.grad = torch.randn(4, 4)
    opt.step()
    assert not torch.equal(net.weight, before)
    torch.testing.assert_close(net.weight, net.weight.mT)


def test_a_pair_that_is_in_the_table_is_refused() -> None:
    with pytest.raises(ArgumentError, match="got Sphere × Max, solved by weighted-median"):
        mm.solvers.register(mm.Sphere, mm.Max, TangentGradient())
    assert TABLE[mm.Sphere, mm.Max] != (TangentGradient(),)


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ((Symmetric(), mm.Frobenius, TangentGradient()), r"\(manifold\) must be a class that"),
        ((Symmetric, mm.Frobenius(), TangentGradient()), r"\(norm\) must be a class that"),
        ((Symmetric, Symmetric, TangentGradient()), r"\(norm\) must be a class that"),
        ((Symmetric, mm.Frobenius), r"\(\*solvers\) must be at least one"),
        ((Symmetric, mm.Frobenius, TangentGradient), r"\(\*solvers\) must be at least one"),
    ],
)
def test_what_is_no_row_is_refused(given: tuple[object, ...], rule: str) -> None:
    with pytest.raises(ArgumentError, match=f"^register{rule}"):
        mm.solvers.register(*given)  # pyright: ignore[reportArgumentType]
    assert (Symmetric, mm.Frobenius) not in TABLE


def test_a_row_may_be_assigned_for_one_version_more() -> None:
    with pytest.warns(DeprecationWarning, match=r"Call mm\.solvers\.register\(Symmetric, Max, "):
        TABLE[Symmetric, mm.Max] = (NormSteepest(),)
    assert find_pair(Symmetric(), mm.Max()).solvers == (NormSteepest(),)


def test_a_subclass_is_told_which_base_is_listed_and_how_to_register() -> None:
    with pytest.raises(UnsupportedPairError) as caught:
        mm.solvers.select(Rotations(), mm.Spectral())
    assert caught.value.remedy.startswith("Stiefel × Spectral has one")
    assert "mm.solvers.register(Rotations, Spectral, SkewSign(" in caught.value.remedy
    # Its base has no solver for this norm: then the table is listed.
    with pytest.raises(UnsupportedPairError, match="Use one of Euclidean × Frobenius, "):
        mm.solvers.select(Rotations(), mm.Max())


@pytest.mark.parametrize("name", ["baselines", "reference", "ADMM", "SPEL", "Lyapunov"])
def test_a_name_that_left_the_library_says_where_it_is(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"'{name}'.* benchmarks/modular_manifolds_bench/"):
        getattr(mm.solvers, name)


@pytest.mark.parametrize("solver", BASELINES, ids=lambda each: each.name)
def test_a_baseline_is_taken_as_an_instance_where_it_serves(solver: Solver) -> None:
    w, g = mm.Stiefel().random((4, 3)), torch.randn(4, 3)
    for norm in (mm.Spectral(), mm.RMSOperator()):
        assert mm.solvers.find_solver(mm.Stiefel(), norm, solver) is solver
        assert mm.steepest(mm.Stiefel(), norm, w, g, solver=solver).direction.isfinite().all()
        with pytest.raises(ArgumentError, match=r"one of skew-sign .*benchmarks/modular_manifolds"):
            mm.steepest(mm.Stiefel(), norm, w, g, solver=solver.name)
    with pytest.raises(ArgumentError, match="must be 'auto' or one of tangent-gradient"):
        mm.steepest(mm.Stiefel(), mm.Frobenius(), w, g, solver=solver)


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Newton'"):
        _ = mm.solvers.Newton  # pyright: ignore[reportAttributeAccessIssue]
