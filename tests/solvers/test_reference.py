"""The reference of manifold Muon: it is what it says, and the fast path descends as far within its gap."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modular_manifolds_bench.baselines import reference
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.solvers import SkewSign

STIEFEL = mm.Stiefel()
EPS = torch.finfo(torch.float64).eps
few = settings() if settings().max_examples >= 2000 else settings(max_examples=40)

shapes = st.tuples(
    st.sampled_from([(), (), (1,), (3,), (2, 2)]), st.integers(1, 24), st.integers(1, 24)
).map(lambda each: (*each[0], each[1], each[2]))
ranks = st.sampled_from([None, None, 1, 2])


def problem(shape: tuple[int, ...], rank: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """A point and a gradient of unit size, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    w = STIEFEL.random(shape, generator=generator, dtype=torch.float64)
    *batch, m, n = shape
    g = normal(*shape) if rank is None else normal(*batch, m, rank) @ normal(*batch, rank, n)
    return w, g / torch.linalg.matrix_norm(g, keepdim=True)


def inner(g: Tensor, a: Tensor) -> Tensor:
    return (g * a).sum(dim=(-2, -1))


@few
@given(shapes, ranks, st.integers(0, 2**32))
def test_the_closed_form_is_feasible_and_attains_its_value(
    shape: tuple[int, ...], rank: int | None, seed: int
) -> None:
    w, g = problem(shape, rank, seed)
    a = reference.closed_form(w, g)
    rounding = 64 * max(shape[-2:]) * EPS
    assert float(STIEFEL.residual(w).max()) <= rounding
    assert float((a - STIEFEL.tangent(w, a)).abs().max()) <= rounding
    assert float(torch.linalg.matrix_norm(a, 2).max()) <= 1 + rounding
    value = reference.steepest_value(w, g)
    torch.testing.assert_close(inner(g, a), value, rtol=0, atol=rounding)


@few
@given(shapes, ranks, st.integers(0, 2**32), st.sampled_from([torch.float32, torch.float64]))
def test_the_fast_path_descends_as_far_within_its_gap(
    shape: tuple[int, ...], rank: int | None, seed: int, dtype: torch.dtype
) -> None:
    w, g = problem(shape, rank, seed)
    found = mm.steepest(STIEFEL, mm.Spectral(), w.to(dtype), g.to(dtype), solver=SkewSign())
    # Reading W in float32 moves every value by a rounding of each entry.
    rounding = 64 * max(shape[-2:]) * torch.finfo(dtype).eps
    value = reference.steepest_value(w, g)
    descends = inner(g, found.direction.double())
    assert bool((found.gap <= 1e-2).all())
    assert bool((descends <= (1 - found.gap.double()) * value + rounding).all())
    # Weak duality: whatever Λ is, nothing feasible goes lower.
    _, multiplier = reference.dual_ascent(w, g, steps=5, step_size=0.05)
    for each in (multiplier, torch.zeros_like(multiplier), multiplier + 0.1):
        assert bool((reference.dual_value(w, g, each) <= descends + rounding).all())


@few
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**32))
def test_dual_ascent_approaches_the_value_from_below(m: int, n: int, seed: int) -> None:
    w, g = problem((m, n), None, seed)
    value = float(reference.steepest_value(w, g))
    missing = []
    for steps in (0, 10, 100, 400):
        _, multiplier = reference.dual_ascent(w, g, steps=steps, step_size=0.05)
        missing.append(value - float(reference.dual_value(w, g, multiplier)))
    assert min(missing) >= -64 * EPS * max(m, n)
    # The step size decays to zero, so 400 steps of 0.05 end well within a hundredth.
    assert missing[-1] <= 0.01
    assert missing[-1] <= 0.1 * missing[0] + 1e-3


def test_dual_ascent_ends_near_the_closed_form() -> None:
    w, g = problem((12, 5), None, 0)
    a, multiplier = reference.dual_ascent(w, g, steps=2000, step_size=0.05)
    assert multiplier.shape == (5, 5)
    torch.testing.assert_close(a, reference.closed_form(w, g), rtol=0, atol=2e-2)
    wide, same = reference.dual_ascent(w.mT, g.mT, steps=2000, step_size=0.05)
    torch.testing.assert_close(wide, a.mT)
    torch.testing.assert_close(same, multiplier)


def test_dual_ascent_stops_at_its_tolerance() -> None:
    """For a square W the start is the optimum, so not one step is taken."""
    w, g = problem((6, 6), None, 1)
    _, start = reference.dual_ascent(w, g, steps=0)
    _, after = reference.dual_ascent(w, g, steps=50)
    assert torch.equal(start, after)


@pytest.mark.parametrize("shape", [(3, 4, 2), (3, 2, 4), (2, 2, 6, 3)])
def test_a_stack_equals_its_matrices(shape: tuple[int, ...]) -> None:
    w, g = problem(shape, None, 2)
    a, value = reference.closed_form(w, g), reference.steepest_value(w, g)
    flat = zip(w.flatten(0, -3), g.flatten(0, -3), a.flatten(0, -3), value.flatten(), strict=True)
    for each_w, each_g, each_a, each_value in flat:
        torch.testing.assert_close(reference.closed_form(each_w, each_g), each_a)
        torch.testing.assert_close(reference.steepest_value(each_w, each_g), each_value)


def test_the_reference_imports_nothing_of_this_library() -> None:
    """A fault of the fast path cannot be a fault of what it is compared with."""
    tree = ast.parse(Path(reference.__file__).read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"__future__", "torch"}
