"""Finite input of any rank, layout and size gives finite directions, norms and matrix signs, in memory of their own."""

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
from long_tests import mostly_long
from modular_manifolds_bench.baselines import BASELINES
from strategies import STEPS, rooms, tensors

import modular_manifolds as mm
from modular_manifolds.errors import NonFiniteError
from modular_manifolds.solvers import NormSteepest, Solver, Status, pairs
from modular_manifolds.testing.check import at_least, at_most, finite, unchanged

SOLVES = [(pair.manifold, pair.norm, each) for pair in pairs() for each in cases.solvers(pair)]


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


@pytest.mark.parametrize(
    ("kind", "norm", "solver"),
    mostly_long(
        SOLVES,
        usual=lambda case: case[2] not in BASELINES,
        several=True,
    ),
    ids=cases.name,
)
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


def test_dtypes_that_differ_are_joined_in_the_wider_one() -> None:
    """A float64 gradient may be out of float32's range."""
    for kind in KINDS:
        manifold = kind()
        w, g = manifold.random((4, 3)), torch.randn(4, 3, dtype=torch.float64)
        norm = mm.Spectral() if kind is mm.FixedGram else mm.Frobenius()
        found = mm.steepest(manifold, norm, w, 1e300 * g)
        assert found.direction.dtype is torch.float32
        expected = mm.steepest(manifold, norm, w, g.float()).direction
        torch.testing.assert_close(found.direction, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS[1:], ids=cases.name)
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 4, 3)], ids=cases.name)
def test_derivatives_are_those_of_differences(
    shape: tuple[int, ...], kind: type[mm.Manifold]
) -> None:
    """The guards record no derivative of their own, and none is lost."""
    manifold = of_radius(kind, 1.3)
    w, x = manifold.random(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    if kind is mm.FixedGram:
        # Points outside the ball are first brought back, which is a kink at its boundary.
        w = 0.9 * w
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
