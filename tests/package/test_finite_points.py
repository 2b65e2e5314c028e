"""Finite input of any rank, layout and size gives finite points, tangents and residuals, in memory of their own."""

from __future__ import annotations

import math

import cases
import pytest
import torch
from finite import (
    KINDS,
    examples,
    fitting_rooms,
    manifolds,
    memory_is_own,
    no_nan,
    of_radius,
    points,
    rounding,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import tensors

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError
from modular_manifolds.testing.check import at_least, at_most, finite, unchanged


@pytest.mark.parametrize("kind", KINDS, ids=cases.name)
@given(data=st.data())
@examples
def test_project(kind: type[mm.Manifold], data: st.DataObject) -> None:
    room = data.draw(fitting_rooms(kind))
    manifold = data.draw(manifolds(kind, room))
    x = data.draw(tensors(room))
    law = f"{manifold}.project"
    with unchanged(law, x=x):
        found = manifold.project(x)
    finite(found, law)
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    memory_is_own({law: found}, x=x)
    at_most(manifold.residual(found), rounding(room), f"{law} lands on the manifold")


@pytest.mark.parametrize("kind", KINDS, ids=cases.name)
@given(data=st.data())
@examples
def test_tangent(kind: type[mm.Manifold], data: st.DataObject) -> None:
    room = data.draw(fitting_rooms(kind))
    manifold = data.draw(manifolds(kind, room))
    point, v = data.draw(points(manifold, room)), data.draw(tensors(room))
    law = f"{manifold}.tangent"
    with unchanged(law, point=point, v=v):
        found = manifold.tangent(point, v)
    no_nan(found, law)
    memory_is_own({law: found}, point=point, v=v)
    # A projection makes nothing longer: scaled to length one, so is the result.
    size = float(v.detach().abs().max())
    in_range = size * math.sqrt(math.prod(room.shape[-2:])) < torch.finfo(room.dtype).max
    # Among the smallest numbers of a dtype one rounding is as large as the entry.
    if size > 1e6 * torch.finfo(room.dtype).tiny and in_range:
        length = (found.double() / size).square().sum(dim=(-2, -1))
        whole = (v.double() / size).square().sum(dim=(-2, -1))
        at_most(
            length, whole * 1.01 + 1e-6 + torch.finfo(room.dtype).tiny, f"{law} is a projection"
        )


@pytest.mark.parametrize("kind", KINDS, ids=cases.name)
@given(data=st.data())
@examples
def test_retract(kind: type[mm.Manifold], data: st.DataObject) -> None:
    room = data.draw(fitting_rooms(kind))
    manifold = data.draw(manifolds(kind, room))
    point, step = data.draw(points(manifold, room)), data.draw(tensors(room))
    law = f"{manifold}.retract"
    with unchanged(law, point=point, step=step):
        found = manifold.retract(point, step)
    memory_is_own({law: found}, point=point, step=step)
    if kind is mm.Euclidean:
        assert torch.equal(found, point + step)
        return
    finite(found, law)
    at_most(manifold.residual(found), rounding(room), f"{law} lands on the manifold")


@pytest.mark.parametrize("kind", KINDS, ids=cases.name)
@given(data=st.data())
@examples
def test_residual(kind: type[mm.Manifold], data: st.DataObject) -> None:
    room = data.draw(fitting_rooms(kind))
    manifold = data.draw(manifolds(kind, room))
    point = data.draw(points(manifold, room))
    law = f"{manifold}.residual"
    with unchanged(law, point=point):
        found = manifold.residual(point)
    at_least(found, 0.0, law)
    memory_is_own({law: found}, point=point)
    assert found.shape == room.shape[:-2]


@pytest.mark.parametrize("shape", [(8, 4), (4, 8), (6, 6), (200, 100), (2, 8, 4)], ids=cases.name)
@pytest.mark.parametrize("norm", [mm.Spectral(), mm.RMSOperator(), mm.Frobenius()], ids=cases.name)
def test_a_zero_weight_lands_on_the_manifold(norm: mm.Norm, shape: tuple[int, ...]) -> None:
    """As a layer initialised to zero: the direction is not zero, and the weight is on Stiefel after one step."""
    zero, g = torch.zeros(shape), torch.randn(shape)
    found = mm.steepest(mm.Stiefel(), norm, zero, g)
    at_least(norm.value(found.direction), 0.5, "length of the direction at zero")
    landed = mm.Stiefel().retract(zero, 0.1 * found.direction)
    at_most(mm.Stiefel().residual(landed), 1e-5, "the weight after a step from zero")


@pytest.mark.parametrize("kind", KINDS[1:], ids=cases.name)
def test_a_radius_out_of_the_range_of_a_dtype_is_refused(kind: type[mm.Manifold]) -> None:
    for radius, dtype in ((1e5, torch.float16), (1e-6, torch.float16), (1e39, torch.float32)):
        x = torch.ones(3, 2, dtype=dtype)
        with pytest.raises(
            ArgumentError, match=r"\(radius\) must be a normal number of torch\.float"
        ):
            of_radius(kind, radius).project(x)
