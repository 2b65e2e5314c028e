"""Modules with bounds of their own are searched where their input arrives, and a missing bound is named."""

from __future__ import annotations

import math

import pytest
import torch

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError


class Steep(mm.Bond):
    """A slope of 1/0.9 where 1 is declared."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu() / 0.9


class Square(mm.Bond):
    """`x²/2`: the slope |x| of an entry is at most ‖x‖ in l2, l1 and linf."""

    def lipschitz_within(self, radius: float) -> float:
        return radius

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        return torch.finfo(dtype).eps * radius**2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.square() / 2


class Join(mm.Bond):
    """`x + y` of a pair: the norm of a pair is the sum, so the slope is 1."""

    def __init__(self, size: int) -> None:
        space = mm.Space(size)
        super().__init__(source=mm.ProductSpace((space, space)), target=space)

    def forward(self, x: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return x[0] + x[1]


class Opaque(mm.Atom):
    """A linear map that says nothing of itself but a declared bound that is infinite."""

    def __init__(self, size: int) -> None:
        super().__init__(
            geometry=mm.Geometry(mm.Euclidean(), mm.Spectral()),
            shape=(size, size),
            source=mm.Space(size),
            target=mm.Space(size),
            sensitivity=1.0,
            lipschitz=math.inf,
        )

    def describe(self) -> str:
        return "Opaque"

    def arguments(self) -> dict[str, object]:
        return {"size": self.weight.shape[0]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T


def test_the_search_refutes_a_module_that_declares_too_little() -> None:
    rows = mm.lipschitz(mm.Linear(6, 6) >> Steep()).rows
    assert rows[1].certified == 1
    assert rows[1].empirical == pytest.approx(1 / 0.9)


def test_a_module_is_searched_at_what_arrives_there() -> None:
    """A ReLU whose input is never positive has slope 0, wherever the search goes."""
    free = mm.Linear(2, 2, manifold=mm.Euclidean())
    with torch.no_grad():
        free.weight.copy_(torch.eye(2))
    for sign in (-1.0, 1.0):
        rows = mm.lipschitz(mm.Linear(2, 2) >> mm.Abs() >> sign * free >> mm.ReLU()).rows
        assert rows[-1].label == "ReLU"
        assert rows[-1].empirical == pytest.approx(max(sign, 0))


def test_nothing_of_what_has_no_bound_is_nothing() -> None:
    net = mm.Linear(4, 4, manifold=mm.Euclidean()) >> Square() >> mm.Linear(4, 4)
    with torch.no_grad():
        net.get_parameter("0.weight").zero_()
    report = mm.lipschitz(net)
    assert (report.declared, report.certified) == (math.inf, 0.0)


def test_the_radius_that_arrives_decides() -> None:
    net = mm.Linear(8, 8, manifold=mm.Stiefel(radius=2.0)) >> Square() >> mm.Linear(8, 4)
    report = mm.lipschitz(net, radius=3.0)
    assert report.declared == pytest.approx(12.0)
    assert report.certified == pytest.approx(12.0, rel=1e-6)
    assert [row.declared for row in report.rows] == pytest.approx([2.0, 6.0, 1.0])
    # In linf the same ball is larger by √8.
    wide = mm.lipschitz(net, input_norm="linf", radius=3.0)
    assert wide.rows[1].declared == pytest.approx(6.0 * math.sqrt(8))
    twice = mm.lipschitz(mm.Linear(8, 8) >> Square() >> Square(), radius=3.0)
    # ‖x‖ ≤ 3, ‖x²/2‖ ≤ 9 by the rule L·r: slopes 3 and 9.
    assert twice.declared == pytest.approx(27.0)


def test_a_module_without_a_finite_bound_is_named_with_what_to_do() -> None:
    net = mm.Linear(8, 8) >> mm.Series(inner=Square()) >> mm.Linear(8, 4)
    report = mm.lipschitz(net)
    assert math.isinf(report.declared)
    assert math.isinf(report.certified)
    assert report.advice() == [
        "no bound holds at inner (Square): its bound depends on the size of its input; "
        "pass radius= (--input-radius on the command line), the largest norm of the inputs"
    ]
    assert report.advice()[0] in str(report)
    free = mm.lipschitz(mm.Linear(8, 8, manifold=mm.Euclidean()) >> Square(), radius=1.0)
    assert math.isinf(free.declared)
    assert math.isfinite(free.certified)
    assert free.advice() == [
        "no bound is declared, because the weights of 0 are on an unbounded manifold; "
        "put them on Stiefel, Sphere or Oblique to get one",
        "no bound is declared at 1 (Square): its bound depends on the size of its input, which a module "
        "in front leaves unbounded",
    ]
    assert mm.lipschitz(Opaque(4) >> mm.ReLU()).advice() == [
        "no bound holds at 0 (Opaque): put its weight on Stiefel, Sphere or Oblique to get one"
    ]


def test_what_is_given_a_tuple_is_bounded_and_not_searched() -> None:
    net = mm.Linear(6, 6) >> (mm.ReLU() | mm.Identity()) >> mm.Abs() >> Join(6) >> mm.Linear(6, 3)
    report = mm.lipschitz(net, radius=1.0)
    assert report.declared == pytest.approx(2.0)
    found = {row.label: row.empirical for row in report.rows}
    assert found["Join"] is None
    assert found["Abs"] == pytest.approx(1.0)
    assert report.rounding == math.inf
    assert "no bound on the rounding holds at 3 (Join)" in str(report)
    assert report.cells()[4][-1] == "-"


def test_points_outside_the_radius_are_refused() -> None:
    with pytest.raises(ArgumentError, match="points must lie within radius=1 in l2, got a point"):
        mm.lipschitz(mm.Linear(3, 3), radius=1.0, points=torch.ones(2, 3))
    for radius in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ArgumentError, match="radius must be finite and positive"):
            mm.lipschitz(mm.Linear(3, 3), radius=radius)
