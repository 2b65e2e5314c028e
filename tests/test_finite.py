"""Finite input gives finite output, in memory of its own, whatever its rank, its layout and its size."""

from __future__ import annotations

import math

import cases
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import RADII, STEPS, Room, laid_out, rooms, tensors
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.solvers import TABLE, NormSteepest, Solver, Status
from modular_manifolds.testing.check import apart, at_least, at_most, finite, untouched

KINDS = [type(manifold) for manifold in cases.MANIFOLDS]
KINDS = sorted(set(KINDS), key=KINDS.index)
SOLVES = [(m, n, solver) for (m, n), solvers in TABLE.items() for solver in solvers]


def of_radius(kind: type[mm.Manifold], radius: float) -> mm.Manifold:
    return kind() if kind is mm.Euclidean else kind(radius)  # pyright: ignore[reportCallIssue]


@st.composite
def manifolds(draw: st.DrawFn, kind: type[mm.Manifold], room: Room) -> mm.Manifold:
    del room
    return of_radius(kind, draw(st.sampled_from(RADII)))


@st.composite
def fitting_rooms(draw: st.DrawFn, kind: type[mm.Manifold]) -> Room:
    room = draw(rooms())
    if kind is mm.BalancedRows and room.shape[-1] == 1:
        return Room((*room.shape[:-1], 2), room.dtype)
    return room


@st.composite
def points(draw: st.DrawFn, manifold: mm.Manifold, room: Room) -> Tensor:
    """A point of the manifold, zero, a stack with one zero among points, or a tensor far off the manifold."""
    kind = draw(st.sampled_from(["point", "point", "zero", "partly zero", "anything"]))
    if kind == "anything":
        return draw(tensors(room))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 50)))
    point = manifold.random(room.shape, generator=generator, dtype=room.dtype)
    if kind == "zero":
        point = torch.zeros_like(point)
    elif kind == "partly zero":
        point[0] = 0.0
    return laid_out(point, draw(st.sampled_from(["contiguous", "transposed", "requires grad"])))


def rounding(room: Room) -> float:
    """The relative error of a few products and a decomposition, as `testing.Sample` has it."""
    return 32 * math.sqrt(sum(room.shape[-2:])) * torch.finfo(room.dtype).eps


def no_nan(x: Tensor, law: str) -> None:
    at_most(x.isnan().sum(), 0, f"{law}, entries that are NaN")


def memory_is_own(results: dict[str, Tensor], **arguments: Tensor) -> None:
    for name, result in results.items():
        apart(result, name, **arguments)


@pytest.mark.parametrize("kind", KINDS, ids=cases.name)
@given(data=st.data())
def test_project(kind: type[mm.Manifold], data: st.DataObject) -> None:
    room = data.draw(fitting_rooms(kind))
    manifold = data.draw(manifolds(kind, room))
    x = data.draw(tensors(room))
    law = f"{manifold}.project"
    with untouched(law, x=x):
        found = manifold.project(x)
    finite(found, law)
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    memory_is_own({law: found}, x=x)
    at_most(manifold.residual(found), rounding(room), f"{law} lands on the manifold")


@pytest.mark.parametrize("kind", KINDS, ids=cases.name)
@given(data=st.data())
def test_tangent(kind: type[mm.Manifold], data: st.DataObject) -> None:
    room = data.draw(fitting_rooms(kind))
    manifold = data.draw(manifolds(kind, room))
    point, v = data.draw(points(manifold, room)), data.draw(tensors(room))
    law = f"{manifold}.tangent"
    with untouched(law, point=point, v=v):
        found = manifold.tangent(point, v)
    no_nan(found, law)
    memory_is_own({law: found}, point=point, v=v)
    # A projection makes nothing longer: scaled to length one, so is the result.
    size = float(v.detach().abs().max())
    in_range = size * math.sqrt(math.prod(room.shape[-2:])) < torch.finfo(room.dtype).max
    if size > 0 and in_range:
        length = (found.double() / size).square().sum(dim=(-2, -1))
        whole = (v.double() / size).square().sum(dim=(-2, -1))
        at_most(
            length, whole * 1.01 + 1e-6 + torch.finfo(room.dtype).tiny, f"{law} is a projection"
        )


@pytest.mark.parametrize("kind", KINDS, ids=cases.name)
@given(data=st.data())
def test_retract(kind: type[mm.Manifold], data: st.DataObject) -> None:
    room = data.draw(fitting_rooms(kind))
    manifold = data.draw(manifolds(kind, room))
    point, step = data.draw(points(manifold, room)), data.draw(tensors(room))
    law = f"{manifold}.retract"
    with untouched(law, point=point, step=step):
        found = manifold.retract(point, step)
    memory_is_own({law: found}, point=point, step=step)
    if kind is mm.Euclidean:
        assert torch.equal(found, point + step)
        return
    finite(found, law)
    at_most(manifold.residual(found), rounding(room), f"{law} lands on the manifold")


@pytest.mark.parametrize("kind", KINDS, ids=cases.name)
@given(data=st.data())
def test_residual(kind: type[mm.Manifold], data: st.DataObject) -> None:
    room = data.draw(fitting_rooms(kind))
    manifold = data.draw(manifolds(kind, room))
    point = data.draw(points(manifold, room))
    law = f"{manifold}.residual"
    with untouched(law, point=point):
        found = manifold.residual(point)
    at_least(found, 0.0, law)
    memory_is_own({law: found}, point=point)
    assert found.shape == room.shape[:-2]


@pytest.mark.parametrize("norm", cases.NORMS, ids=cases.name)
@given(data=st.data())
def test_norm(norm: mm.Norm, data: st.DataObject) -> None:
    room = data.draw(rooms())
    x = data.draw(tensors(room))
    with untouched(f"{norm}", x=x):
        found = {"value": norm.value(x), "dual": norm.dual(x), "steepest": norm.steepest(x)}
    memory_is_own(found, x=x)
    at_least(found["value"], 0.0, f"{norm}.value")
    at_least(found["dual"], 0.0, f"{norm}.dual")
    a = found["steepest"]
    finite(a, f"{norm}.steepest")
    at_most(norm.value(a), 1 + norm.accuracy + rounding(room), f"{norm}.steepest, length")
    zero = (x == 0).all(dim=-1).all(dim=-1)
    at_most(a.abs().amax(dim=(-2, -1))[zero], 0.0, f"{norm}.steepest of zero")


@pytest.mark.parametrize("accuracy", [0.1, 1e-3, 1e-6, "exact"])
@given(data=st.data())
def test_msign(accuracy: float, data: st.DataObject) -> None:
    room = data.draw(rooms())
    x = data.draw(tensors(room))
    with untouched("msign", x=x):
        found = mm.msign(x, accuracy=accuracy)
    finite(found, "msign")
    memory_is_own({"msign": found}, x=x)
    off = accuracy if isinstance(accuracy, float) else 0.0
    at_most(torch.linalg.matrix_norm(found.double(), 2), 1 + off + rounding(room), "msign, length")


@pytest.mark.parametrize(("kind", "norm", "solver"), SOLVES, ids=cases.name)
@given(data=st.data())
def test_steepest(
    kind: type[mm.Manifold], norm: type[mm.Norm], solver: Solver, data: st.DataObject
) -> None:
    room = data.draw(fitting_rooms(kind))
    manifold, measure = data.draw(manifolds(kind, room)), norm()
    point, g = data.draw(points(manifold, room)), data.draw(tensors(room))
    law = f"{solver.name} for {manifold} × {measure}"
    with untouched(law, point=point, g=g):
        found = mm.steepest(manifold, measure, point, g, solver=solver)
    a = found.direction
    finite(a, f"{law}: direction")
    at_least(found.gap, 0.0, f"{law}: gap")
    at_most(found.gap, 1.0, f"{law}: gap")
    if found.dual is not None:
        finite(found.dual, f"{law}: dual")
    memory_is_own({law: a, "gap": found.gap}, point=point, g=g)
    off = measure.accuracy if isinstance(solver, NormSteepest) else 0.0
    half = math.sqrt(torch.finfo(room.dtype).eps) if solver.half_the_digits else 0.0
    at_most(measure.value(a), 1 + off + max(rounding(room), half), f"{law}: length")
    if found.status is Status.CONVERGED and found.tolerance is not None:
        at_most(found.gap, found.tolerance, f"{law}: gap of what converged")
    descent = -(a.double() * (g.double() / g.detach().double().abs().max().clamp_min(1e-320))).sum(
        dim=(-2, -1)
    )
    at_least(descent, -half - rounding(room), f"{law}: goes downhill")
    eta = data.draw(st.sampled_from(STEPS))
    landed = manifold.retract(point.detach(), eta * a)
    no_nan(landed, f"{law}: retraction")
    if kind is not mm.Euclidean:
        at_most(manifold.residual(landed), rounding(room), f"{law}: retraction lands")
