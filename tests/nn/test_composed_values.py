"""Compositions and bonds compute their formulas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import BONDS, networks, sizes

import modular_manifolds as mm
from modular_manifolds.errors import SpaceError


@given(data=st.data())
def test_compositions_compute_their_formulas(data: st.DataObject) -> None:
    into, out = data.draw(sizes), data.draw(sizes)
    net, formula = data.draw(networks(into, out))
    x = torch.randn(5, into, dtype=torch.float64)
    torch.testing.assert_close(net(x), formula(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", BONDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("size", [1, 4, 7])
def test_bonds_compute_their_formulas(kind: type[mm.Bond], size: int) -> None:
    x = torch.randn(20, size, dtype=torch.float64)
    torch.testing.assert_close(kind()(x), BONDS[kind](x))


def test_leading_dimensions_are_kept() -> None:
    x = torch.randn(2, 3, 5)
    net = mm.Linear(5, 4) >> mm.MaxMin() >> mm.GELU() >> mm.Abs()
    assert net(x).shape == (2, 3, 4)
    torch.testing.assert_close(net(x)[1, 2], net(x[1, 2]))
    assert mm.Flatten()(x).shape == (2, 15)


def test_parallel_gives_a_tuple_and_bonds_take_it_part_by_part() -> None:
    f, g = mm.Linear(5, 4), mm.Linear(5, 3)
    x = torch.randn(2, 5)
    net = 2.0 * mm.Series(mm.Parallel(f, g), mm.Abs())
    first, second = net(x)
    torch.testing.assert_close(first, 2 * (x @ f.weight.mT).abs())
    torch.testing.assert_close(second, 2 * (x @ g.weight.mT).abs())
    assert net.target == mm.ProductSpace((mm.Space(4), mm.Space(3)))
    other = mm.Linear(5, 4) | mm.Linear(5, 3)
    for found, a, b in zip((net + other)(x), net(x), other(x), strict=True):
        torch.testing.assert_close(found, a + b)


def test_the_same_bond_may_stand_at_many_places() -> None:
    """Only weights may not be shared: a bond used twice acts twice."""
    relu = mm.ReLU()
    net = mm.Linear(3, 3) >> relu >> mm.Linear(3, 3) >> relu
    x = torch.randn(10, 3)
    assert len(net.tree().parts) == 4
    assert float(net(x).detach().min()) >= 0.0
    doubled = mm.Sum(relu, relu)
    assert doubled.sensitivity == 2.0
    torch.testing.assert_close(doubled(x), 2 * x.relu())
    assert len(mm.Parallel(relu, relu, relu)(x)) == 3


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_residual_is_its_formula_and_keeps_sensitivity_one(depth: int) -> None:
    block = mm.Linear(4, 6) >> mm.GELU() >> mm.Linear(6, 4)
    net = mm.Residual(block, depth=depth)
    x = torch.randn(7, 4)
    torch.testing.assert_close(net(x), (1 - 1 / depth) * x + block(x) / depth)
    assert net.sensitivity == pytest.approx(1.0)
    assert (net**depth).sensitivity == pytest.approx(1.0)
    assert net.mass == block.mass
    doubled = mm.Residual(2.0 * mm.Linear(4, 4), depth=depth)
    assert doubled.sensitivity == pytest.approx(1 + 1 / depth)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_residual_block_must_give_what_it_takes(depth: int) -> None:
    for block in (mm.Linear(3, 1), mm.Linear(3, 4), mm.Linear(3, 3, target_norm="l1")):
        with pytest.raises(SpaceError, match="must give one space"):
            mm.Residual(block, depth=depth)
