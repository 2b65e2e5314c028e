"""The numbers that modules declare hold for every input and are attained."""

from __future__ import annotations

import math
from typing import Any

import cases
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from long_tests import mostly_long
from small_networks import BONDS, linear
from torch import Tensor, nn

import modular_manifolds as mm
from modular_manifolds.composition import VECTOR_NORMS
from modular_manifolds.nn.bonds import GELU_SLOPE
from modular_manifolds.testing import Sample, check_module
from modular_manifolds.testing.measure import vector_norm


def norm_of(manifold: mm.Manifold) -> mm.Norm:
    """A norm that goes with the manifold; what a module declares does not depend on it."""
    return mm.Spectral() if isinstance(manifold, mm.FixedGram) else mm.Frobenius()


@pytest.mark.parametrize(
    "kind", mostly_long(BONDS, usual=lambda kind: kind is mm.MaxMin), ids=lambda kind: kind.__name__
)
def test_bonds_keep_the_laws(kind: type[mm.Bond]) -> None:
    assert kind().sensitivity == 1.0
    # Five features are tried with every bond of tests/cases.py.
    for size in (1, 2):
        with cases.Trying(size):
            check_module(kind(), Sample((size,)))


@given(
    kind=st.sampled_from(list(BONDS)),
    norm=st.sampled_from(VECTOR_NORMS),
    pairs=st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4)), min_size=1, max_size=6),
)
def test_no_pair_of_inputs_beats_a_sensitivity_of_one(
    kind: type[mm.Bond], norm: str, pairs: list[tuple[float, float]]
) -> None:
    x, y = torch.tensor(pairs, dtype=torch.float64).mT.unsqueeze(1)
    bond = kind()
    moved = float(vector_norm(bond(x) - bond(y), norm).squeeze())
    # GELU's own values are rounded: differences are known to 1e-15 only.
    assert moved <= float(vector_norm(x - y, norm).squeeze()) + 4e-15


def slopes_of_gelu(divisor: float) -> Tensor:
    """Difference quotients around √2, where the slope is largest, in float64."""
    centre = math.sqrt(2) + torch.linspace(-1e-2, 1e-2, 2001, dtype=torch.float64)
    h = 1e-4
    return (nn.functional.gelu(centre + h) - nn.functional.gelu(centre - h)) / (2 * h * divisor)


def test_gelu_is_divided_by_enough() -> None:
    """1.1289, just below the largest slope 1.128904145…, would not do; the constant used is the next up."""
    assert float(slopes_of_gelu(GELU_SLOPE).max()) <= 1.0
    assert float(slopes_of_gelu(1.1289).max()) > 1.0
    assert float(slopes_of_gelu(GELU_SLOPE).max()) > 1 - 1e-7
    x = torch.tensor([math.sqrt(2)], dtype=torch.float64, requires_grad=True)
    mm.GELU()(x).backward()
    assert x.grad is not None
    exact = 0.5 * (1 + math.erf(1.0)) + math.exp(-1.0) / math.sqrt(math.pi)
    assert exact / GELU_SLOPE <= 1.0
    assert float(x.grad) == pytest.approx(exact / GELU_SLOPE, rel=1e-13)


ENDS = [(source, target) for source in VECTOR_NORMS for target in VECTOR_NORMS]


@pytest.mark.parametrize(
    "shape", mostly_long([(4, 3), (2, 5), (1, 3), (3, 1)], usual=3), ids=cases.name
)
@pytest.mark.parametrize("norm", cases.NORMS, ids=cases.name)
def test_norm_constants_hold_for_all_norms_of_input_and_output(
    norm: mm.Norm, shape: tuple[int, int]
) -> None:
    """`‖ΔW x‖_target ≤ κ ‖ΔW‖ ‖x‖_source` for random, sign, coordinate and singular vectors and matrices."""
    steps = torch.randn(40, *shape, dtype=torch.float64)
    alike = torch.ones(1, *shape, dtype=torch.float64)
    corner = torch.zeros_like(alike)
    corner[0, 0, 0] = 1.0
    steps = torch.cat((steps, steps.sign(), norm.steepest(steps), alike, corner))
    x = vectors(steps)
    for source, target in ENDS:
        ends: dict[str, Any] = {"source_norm": source, "target_norm": target}
        atom = mm.Linear(shape[1], shape[0], manifold=mm.Euclidean(), norm=norm, **ends)
        allowed = mm.budget(atom).rows[0].norm_constant * norm.value(steps)
        reached = vector_norm(x @ steps.mT, target) / vector_norm(x, source)
        held = reached.amax(dim=-1) <= allowed * (1 + 1e-12)
        assert bool(held.all()), f"{source} to {target}"


def vectors(w: Tensor) -> Tensor:
    """Inputs among which the extreme ones are found: (*batch, count, in)."""
    batch, size = w.shape[:-2], w.shape[-1]
    random = torch.randn(*batch, 40, size, dtype=w.dtype)
    units = torch.eye(size, dtype=w.dtype).expand(*batch, size, size)
    signs = torch.where(w >= 0, 1.0, -1.0)
    return torch.cat((random, random.sign(), units, signs, torch.linalg.svd(w)[2]), dim=-2)


COMPACT = [m for m in cases.MANIFOLDS if m.compact]


@pytest.mark.parametrize("manifold", COMPACT, ids=cases.name)
@pytest.mark.parametrize(
    "shape", mostly_long([(4, 3), (2, 5), (3, 3), (4, 1), (1, 4)], usual=5), ids=cases.name
)
def test_operator_bounds_hold_at_every_point(manifold: mm.Manifold, shape: tuple[int, int]) -> None:
    if not cases.fits(manifold, shape):
        shape = (shape[0], 2)
    points = [manifold.random((60, *shape), dtype=torch.float64)]
    points.append(manifold.project(torch.ones(1, *shape, dtype=torch.float64)))
    points.append(manifold.project(points[0].sign()))
    w = torch.cat(points)
    x = vectors(w)
    for source, target in ENDS:
        ends: dict[str, Any] = {"source_norm": source, "target_norm": target}
        atom = mm.Linear(shape[1], shape[0], manifold=manifold, norm=norm_of(manifold), **ends)
        reached = vector_norm(x @ w.mT, target) / vector_norm(x, source)
        assert float(reached.max()) <= atom.sensitivity * (1 + 1e-12), f"{source} to {target}"


@pytest.mark.parametrize("manifold", COMPACT, ids=cases.name)
def test_operator_bounds_from_l2_to_l2_are_attained(manifold: mm.Manifold) -> None:
    atom = mm.Linear(3, 4, manifold=manifold, norm=norm_of(manifold))
    alike = manifold.project(torch.ones(4, 3, dtype=torch.float64))
    assert float(torch.linalg.matrix_norm(alike, 2)) == pytest.approx(atom.sensitivity)


def laws_hold_for() -> dict[str, mm.Module]:
    rms: dict[str, Any] = {"norm": mm.RMSOperator()}
    sphere: dict[str, Any] = {"manifold": mm.Sphere(), "norm": mm.Frobenius()}
    rows: dict[str, Any] = {"manifold": mm.Oblique(), "norm": mm.RowRMS()}
    return {
        "mlp": mm.Linear(5, 7) >> mm.ReLU() >> mm.Linear(7, 3, mass=2.0),
        "rms": mm.Linear(5, 7, **rms) >> mm.MaxMin() >> mm.Linear(7, 3, **rms),
        "residual": mm.Residual(mm.Linear(5, 6) >> mm.GELU() >> mm.Linear(6, 5), depth=3) ** 3,
        "sum": -2.0 * mm.Linear(5, 4) + (mm.Linear(5, 4, mass=0.0) >> mm.Abs()),
        "parallel": mm.Linear(5, 5) >> mm.Parallel(mm.Linear(5, 2), 0.5 * mm.Linear(5, 3)),
        "sphere": linear(5, 4, **sphere) >> linear(4, 3, **sphere),
        "rows": mm.Linear(5, 4, **rows),
        "signs": mm.Linear(5, 4, manifold=mm.Euclidean(), norm=mm.Max()),
        "ends": mm.Linear(5, 4, source_norm="linf", target_norm="l1"),
    }


@pytest.mark.parametrize("name", mostly_long(laws_hold_for(), usual=3))
def test_networks_keep_the_laws(name: str) -> None:
    check_module(cases.in_double(laws_hold_for()[name]), Sample((5,), torch.float64))
