"""Every door of the mathematics computes what it says, whatever the caller has told torch about precision and modes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import cases
import pytest
import torch
from long_tests import mostly_long
from modular_manifolds_bench.baselines import SPEL, DualAscent
from surroundings import SURROUNDINGS
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.solvers import SkewSign, Solver, pairs
from modular_manifolds.testing.draws import scaled_to

SMALL, LARGE = (5, 4), (200, 256)
"""Products in float32 of 128 rows and columns or more go to oneDNN, whose precision torch's settings lower."""

Results = Mapping[str, Tensor]
Door = Callable[[Tensor, Tensor], Results]
"""The answers of the door's methods for a point and a gradient."""


def of_manifold(manifold: mm.Manifold, point: Tensor, v: Tensor) -> Results:
    generator = torch.Generator().manual_seed(0)
    w = manifold.project(point)
    step = 0.1 * scaled_to(w, manifold.tangent(w, v))
    return {
        "random": manifold.random(v.shape, generator=generator, dtype=v.dtype, device="cpu"),
        "project": w,
        "tangent": manifold.tangent(w, v),
        "retract": manifold.retract(w, step),
        "residual": 1 + manifold.residual(w),
    }


def of_product(point: Tensor, v: Tensor) -> Results:
    product = mm.Product({"a": mm.Stiefel(1.7), "b": mm.Sphere()})
    w = product.project({"a": point, "b": point})
    both = {"a": product.tangent(w, {"a": v, "b": v}), "b": product.retract(w, {"a": v, "b": v})}
    both["c"] = {name: 1 + off for name, off in product.residual(w).items()}
    return {f"{name} {key}": x for name, found in both.items() for key, x in found.items()}


def of_norm(norm: mm.Norm, x: Tensor) -> Results:
    return {"value": norm.value(x), "dual": norm.dual(x), "steepest": norm.steepest(x)}


def of_modular_norm(x: Tensor) -> Results:
    norm = mm.ModularNorm({"a": mm.Spectral(), "b": mm.RowRMS()}, {"a": 0.3, "b": 0.7})
    both = {"a": x, "b": x}
    return {"value": norm.value(both), "dual": norm.dual(both), **norm.steepest(both)}


def of_msign(x: Tensor) -> Results:
    return {str(accuracy): mm.msign(x, accuracy=accuracy) for accuracy in (1e-3, 1e-6, "exact")}


def of_solver(
    solver: Solver, manifold: mm.Manifold, norm: mm.Norm, point: Tensor, g: Tensor
) -> Results:
    w = manifold.project(point)
    through, alone = mm.steepest(manifold, norm, w, g, solver=solver), None
    alone = solver.solve(manifold, norm, w, g, None)
    return {
        "steepest": through.direction,
        "gap": 1 + through.gap,
        "solve": alone.direction,
        "gap of solve": 1 + alone.gap,
    }


def doors() -> dict[str, tuple[Door, tuple[tuple[int, ...], ...]]]:
    found: dict[str, tuple[Door, tuple[tuple[int, ...], ...]]] = {
        "msign": (lambda _, x: of_msign(x), (SMALL, LARGE)),
        "ModularNorm": (lambda _, x: of_modular_norm(x), (SMALL,)),
        "Product": (of_product, (SMALL,)),
    }
    for manifold in cases.MANIFOLDS:
        shapes = (SMALL, LARGE) if manifold in (mm.Stiefel(), mm.Sphere()) else (SMALL,)
        found[str(manifold)] = (lambda p, v, m=manifold: of_manifold(m, p, v), shapes)
    for norm in cases.NORMS:
        shapes = (SMALL, LARGE) if norm == mm.Spectral() else (SMALL,)
        found[str(norm)] = (lambda _, x, n=norm: of_norm(n, x), shapes)
    for pair in pairs():
        for solver in cases.solvers(pair):
            if isinstance(solver, DualAscent):
                # In bfloat16 a different sum may decide whether a hundredth of a step is taken.
                solver = dataclasses.replace(solver, precision="input", steps=5)
            on, by = pair.manifold(), pair.norm()
            large = isinstance(solver, SkewSign | SPEL) and pair.norm is mm.Spectral
            shapes = (SMALL, LARGE) if large else (SMALL,)
            found[f"{on} × {by}: {solver.name}"] = (
                lambda p, g, s=solver, m=on, n=by: of_solver(s, m, n, p, g),
                shapes,
            )
    return found


DOORS = doors()


@pytest.mark.parametrize("door", mostly_long(DOORS, usual=2))
def test_a_door_keeps_its_precision(door: str) -> None:
    """Results are those outside to rounding of float32: products of 256 terms, magnified by some conditioning."""
    call, shapes = DOORS[door]
    for shape in shapes:
        generator = torch.Generator().manual_seed(len(door))
        point, v = (torch.randn(shape, generator=generator) for _ in range(2))
        expected = call(point, v)
        for name, around in SURROUNDINGS.items():
            with around():
                found = call(point, v)
            for key, theirs in expected.items():
                ours = found[key]
                assert ours.dtype is theirs.dtype, (name, key)
                allowed = 64 * max(shape) ** 0.5 * torch.finfo(torch.float32).eps
                off = float((ours.double() - theirs.double()).abs().max() / theirs.abs().max())
                assert off <= allowed, (name, key, shape, off)
