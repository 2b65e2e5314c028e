"""Every solver obeys the laws, and the laws find planted faults."""

from __future__ import annotations

import copy
import dataclasses

import cases
import pytest
from broken_solver import FAULTS, Broken
from long_tests import mostly_long
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.solvers import Solver
from modular_manifolds.solvers.solution import Solution
from modular_manifolds.testing import SCALE_FREE, SOLVER_LAWS, Sample, check_solver


def remembering(solver: Solver) -> Solver:
    """The solver, asked only once for each gradient: most laws look at the same solutions.

    It keeps its class, which laws look at too. It gives away copies.
    """
    asked_once = copy.copy(solver)
    known: dict[tuple[bytes, ...], Solution] = {}

    def solve(
        manifold: mm.Manifold,
        norm: mm.Norm,
        point: Tensor,
        gradient: Tensor,
        dual: Tensor | None,
    ) -> Solution:
        given = [x for x in (point, gradient, dual) if x is not None]
        asked = tuple(f"{tuple(x.shape)}".encode() + x.numpy().tobytes() for x in given)
        if asked not in known:
            known[asked] = solver.solve(manifold, norm, point, gradient, dual)
        return copied(known[asked])

    object.__setattr__(asked_once, "solve", solve)
    return asked_once


def copied(found: Solution) -> Solution:
    dual = None if found.dual is None else found.dual.clone()
    return dataclasses.replace(
        found, direction=found.direction.clone(), gap=found.gap.clone(), dual=dual
    )


HALVES = [(case, half) for case in cases.SOLVERS for half in range(min(2, len(case.rooms)))]
"""Every second room of a case, from the first one on or from the second one on."""


@pytest.mark.parametrize(
    ("case", "half"),
    mostly_long(HALVES, usual=lambda each: each[1] == 0 and cases.is_usual(each[0]), several=True),
    ids=cases.name,
)
def test_laws(case: cases.SolverCase, half: int) -> None:
    for shape, dtype in case.rooms[half::2]:
        solver, sample = remembering(case.solver), case.sample(shape, dtype)
        for law in SOLVER_LAWS:
            if case.scale_free or law is not SCALE_FREE:
                # What a solver does to its arguments shows when it solves.
                watched = law.__name__ == "arguments_are_not_written_into"
                with cases.Trying(law, shape, dtype):
                    law(case.solver if watched else solver, case.manifold, case.norm, sample)


@pytest.mark.parametrize("fault", ["none", "not steepest, and says how much"])
def test_a_solver_without_fault_passes(fault: str) -> None:
    check_solver(Broken(fault=fault), mm.Sphere(2.0), mm.Frobenius(), Sample((5, 4)))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_laws_find_faults(fault: str) -> None:
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        check_solver(Broken(fault=fault), mm.Sphere(2.0), mm.Frobenius(), Sample((5, 4)))
