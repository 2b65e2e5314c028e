"""Finite input gives finite output, in memory of its own, whatever its rank, its layout and its size."""

from __future__ import annotations

import math

import cases
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import RADII, STEPS, Room, laid_out, rooms, tensors
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.solvers import NormSteepest, Solver, Status, pairs
from modular_manifolds.testing.check import at_least, at_most, finite, separate_memory, unchanged

KINDS = [type(manifold) for manifold in cases.MANIFOLDS]
KINDS = sorted(set(KINDS), key=KINDS.index)
SOLVES = [(pair.manifold, pair.norm, each) for pair in pairs() for each in cases.solvers(pair)]

examples = settings() if settings().max_examples >= 2000 else settings(max_examples=15)
"""A few by default; all that the profile `thorough` asks for."""


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
        separate_memory(result, name, **arguments)


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


@pytest.mark.parametrize("norm", cases.NORMS, ids=cases.name)
@given(data=st.data())
@examples
def test_norm(norm: mm.Norm, data: st.DataObject) -> None:
    room = data.draw(rooms())
    x = data.draw(tensors(room))
    with unchanged(f"{norm}", x=x):
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
@examples
def test_msign(accuracy: float, data: st.DataObject) -> None:
    room = data.draw(rooms())
    x = data.draw(tensors(room))
    with unchanged("msign", x=x):
        found = mm.msign(x, accuracy=accuracy)
    finite(found, "msign")
    memory_is_own({"msign": found}, x=x)
    off = accuracy if isinstance(accuracy, float) else 0.0
    at_most(torch.linalg.matrix_norm(found.double(), 2), 1 + off + rounding(room), "msign, length")


@pytest.mark.parametrize(("kind", "norm", "solver"), SOLVES, ids=cases.name)
@given(data=st.data())
@examples
def test_steepest(
    kind: type[mm.Manifold], norm: type[mm.Norm], solver: Solver, data: st.DataObject
) -> None:
    room = data.draw(fitting_rooms(kind))
    manifold, measure = data.draw(manifolds(kind, room)), norm()
    point, g = data.draw(points(manifold, room)), data.draw(tensors(room))
    law = f"{solver.name} for {manifold} × {measure}"
    with unchanged(law, point=point, g=g):
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
    # A point that is nearly one is taken as it is: σ² ≤ 1 + 0.05.
    residual = float(manifold.residual(point.detach()).max())
    near = 0.025 if kind is mm.Stiefel and rounding(room) < residual <= 0.05 else 0.0
    at_most(measure.value(a), 1 + off + near + max(rounding(room), half), f"{law}: length")
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


@pytest.mark.parametrize(("kind", "norm", "solver"), SOLVES, ids=cases.name)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_certificate_for_what_is_not_finite(
    bad: float, kind: type[mm.Manifold], norm: type[mm.Norm], solver: Solver
) -> None:
    """NaN or infinity in the gradient gives NaN or an error, and never a converged solution; also in a stack."""
    manifold, measure = kind(), norm()
    for shape in ((4, 3), (2, 4, 3)):
        w, g = manifold.random(shape), torch.randn(shape)
        g.view(-1, 4, 3)[-1, 1, 2] = bad
        try:
            found = mm.steepest(manifold, measure, w, g, solver=solver)
        except NonFiniteError:
            continue
        law = f"{solver.name} for {manifold} × {measure}: gradient of {bad}"
        at_least(found.direction.isnan().sum(), 1, f"{law}, entries of the direction that are NaN")
        assert found.status is not Status.CONVERGED, law


@pytest.mark.parametrize("shape", [(8, 4), (4, 8), (6, 6), (200, 100), (2, 8, 4)], ids=cases.name)
@pytest.mark.parametrize("norm", [mm.Spectral(), mm.RMSOperator(), mm.Frobenius()], ids=cases.name)
def test_a_zero_weight_lands_on_the_manifold(norm: mm.Norm, shape: tuple[int, ...]) -> None:
    """As a layer initialised to zero: the direction is not zero, and the weight is on Stiefel after one step."""
    zero, g = torch.zeros(shape), torch.randn(shape)
    found = mm.steepest(mm.Stiefel(), norm, zero, g)
    at_least(norm.value(found.direction), 0.5, "length of the direction at zero")
    landed = mm.Stiefel().retract(zero, 0.1 * found.direction)
    at_most(mm.Stiefel().residual(landed), 1e-5, "the weight after a step from zero")


def test_dtypes_that_differ_are_joined_in_the_wider_one() -> None:
    """A float64 gradient may be out of float32's range."""
    for kind in KINDS:
        manifold = kind()
        w, g = manifold.random((4, 3)), torch.randn(4, 3, dtype=torch.float64)
        found = mm.steepest(manifold, mm.Frobenius(), w, 1e300 * g)
        assert found.direction.dtype is torch.float32
        expected = mm.steepest(manifold, mm.Frobenius(), w, g.float()).direction
        torch.testing.assert_close(found.direction, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS[1:], ids=cases.name)
def test_a_radius_out_of_the_range_of_a_dtype_is_refused(kind: type[mm.Manifold]) -> None:
    for radius, dtype in ((1e5, torch.float16), (1e-6, torch.float16), (1e39, torch.float32)):
        x = torch.ones(3, 2, dtype=dtype)
        with pytest.raises(
            ArgumentError, match=r"\(radius\) must be a normal number of torch\.float"
        ):
            of_radius(kind, radius).project(x)


@pytest.mark.parametrize("kind", KINDS[1:], ids=cases.name)
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 4, 3)], ids=cases.name)
def test_derivatives_are_those_of_differences(
    shape: tuple[int, ...], kind: type[mm.Manifold]
) -> None:
    """The guards record no derivative of their own, and none is lost."""
    manifold = of_radius(kind, 1.3)
    w, x = manifold.random(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    step = 0.3 * manifold.tangent(w, x)
    calls = {
        "project": (manifold.project, (x,)),
        "tangent": (manifold.tangent, (w, x)),
        "retract": (manifold.retract, (w, step)),
    }
    for call, arguments in calls.values():
        given = tuple(each.clone().requires_grad_() for each in arguments)
        assert torch.autograd.gradcheck(call, given, atol=1e-4, fast_mode=True)


def test_half_precision_at_the_end_of_its_range() -> None:
    x = torch.full((3, 2), 65504.0, dtype=torch.float16)
    for kind in KINDS:
        manifold = kind()
        for found in (manifold.project(x), manifold.tangent(manifold.project(x), x)):
            no_nan(found, f"{manifold} in float16")
        if kind is not mm.Euclidean:
            finite(manifold.retract(x, x), f"{manifold}.retract in float16")
    for norm in cases.NORMS:
        finite(norm.steepest(x), f"{norm}.steepest in float16")
        finite(norm.dual(x), f"{norm}.dual in float16")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_seen_in_every_answer(bad: float) -> None:
    """NaN, infinity or a refusal in words; never a number that looks like an answer, never torch's own error."""
    x = torch.randn(4, 3)
    x[1, 2] = bad
    calls = {
        f"{norm}.{name}": getattr(norm, name)
        for norm in cases.NORMS
        for name in ("value", "dual", "steepest")
    }
    for kind in KINDS:
        manifold = kind()
        w = manifold.random((4, 3))
        calls[f"{manifold}.project"] = manifold.project
        calls[f"{manifold}.tangent"] = lambda v, m=manifold, w=w: m.tangent(w, v)
        calls[f"{manifold}.retract"] = lambda v, m=manifold, w=w: m.retract(w, v)
        if kind is not mm.Euclidean:
            calls[f"{manifold}.residual"] = manifold.residual
    for name, call in calls.items():
        try:
            found = call(x)
        except NonFiniteError:
            continue
        assert not bool(found.isfinite().all()), name
