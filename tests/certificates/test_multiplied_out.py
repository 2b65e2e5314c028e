"""Neighbouring linear maps are multiplied out, and the error of that is bounded."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

import modular_manifolds as mm
from modular_manifolds.certificates.linear_map import LinearMap


def norm_of(*matrices: torch.Tensor) -> float:
    return float(torch.linalg.matrix_norm(torch.linalg.multi_dot(matrices), 2))


def test_linear_maps_are_multiplied_out() -> None:
    torch.manual_seed(0)
    free = {"manifold": mm.Euclidean(), "norm": mm.Spectral()}
    a, b, c = (mm.Linear(*shape, **free) for shape in ((6, 9), (9, 5), (5, 5)))
    with torch.no_grad():
        a.weight.mul_(torch.rand(9, 1))
        b.weight.mul_(torch.rand(9))
    A, B, C = (each.weight.detach().double() for each in (a, b, c))
    eye = torch.eye(5, dtype=torch.float64)
    product = norm_of(B, A)
    rows = mm.lipschitz(a >> b).rows
    assert product < 0.9 * rows[0].certified * rows[1].certified
    cases: list[tuple[mm.Module, float, list[tuple[str, ...]]]] = [
        (a >> b, product, [("0", "1")]),
        (mm.Series(first=a, then=b) >> mm.ReLU(), product, [("first", "then")]),
        (a >> b >> (mm.Identity() + -2.0 * c), norm_of(eye - 2 * C, B, A), []),
        (a >> b >> mm.Residual(c, depth=4), norm_of(0.75 * eye + 0.25 * C, B, A), []),
    ]
    for net, exact, merged in cases:
        report = mm.lipschitz(net)
        assert exact <= report.certified <= exact * (1 + 1e-10)
        if merged:
            assert list(report.merged) == merged
    # In a sum the linear parts are one matrix, the others add: ‖I − Q‖ + 1 for an orthogonal Q.
    q = mm.Linear(5, 5)
    turn = torch.randn(5, 5)
    turn = turn - turn.mT
    with torch.no_grad():
        # By two radians at most, so that ‖I − Q‖ = 2 sin 1 is below the 2 of ‖I‖ + ‖Q‖.
        q.weight.copy_(torch.linalg.matrix_exp(2 * turn / torch.linalg.matrix_norm(turn, 2)))
    net = c >> mm.ReLU() >> mm.Sum(mm.Identity(), mm.Abs(), -1.0 * q)
    exact = float(torch.linalg.matrix_norm(eye - q.weight.detach().double(), 2)) + 1
    scale = mm.lipschitz(c).certified
    assert mm.lipschitz(net).certified == pytest.approx(scale * exact, rel=1e-10)
    assert exact < 1 + 2 * math.sin(1.0) + 1e-5


def exactly(matrix: torch.Tensor) -> list[list[Fraction]]:
    return [[Fraction(entry) for entry in row] for row in matrix.tolist()]


def test_the_error_of_what_was_multiplied_out_is_bounded() -> None:
    """Against exact fractions; (0.1·BA + BA)·A grows the error of each kind of step."""
    torch.manual_seed(0)
    a = torch.randn(12, 12, dtype=torch.float64)
    first = LinearMap(a)
    product = first.then(LinearMap(a.T.contiguous()))
    third = product.scaled(0.1).plus(product).then(first)
    A, B = exactly(a), exactly(a.T)
    BA = [[sum(b * x[j] for b, x in zip(row, A, strict=True)) for j in range(12)] for row in B]
    sums = [[Fraction(0.1) * x + x for x in row] for row in BA]
    last = [[sum(b * x[j] for b, x in zip(row, sums, strict=True)) for j in range(12)] for row in A]
    for found, exact in ((product, BA), (third, last), (product.scaled(0.1), None)):
        if exact is None:
            exact = [[Fraction(0.1) * x for x in row] for row in BA]
        pairs = zip(exactly(found.matrix), exact, strict=True)
        off = sum((x - y) ** 2 for row, other in pairs for x, y in zip(row, other, strict=True))
        assert 0 < off <= Fraction(found.error) ** 2
        assert found.error < 1e-12 * found.size
    off = LinearMap(2 * torch.eye(3, dtype=torch.float64), error=1e-3)
    for both in (
        off.then(LinearMap(torch.eye(3).double())),
        LinearMap(torch.eye(3).double()).then(off),
    ):
        assert both.error >= 1e-3
    assert off.largest_singular_value() >= 2 + 1e-3
