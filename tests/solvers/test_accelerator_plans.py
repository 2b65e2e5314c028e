"""Directions, tangents and retractions on an accelerator: nothing is read, nothing waits, and the results are right.

No accelerator is needed: fake tensors show what is asked of a device, and the same computations run on the CPU.
"""

from __future__ import annotations

import copy
import importlib
import pkgutil
from typing import Any

import cases
import pytest
import torch
from long_tests import mostly_long
from torch import Tensor
from torch._subclasses import FakeTensorMode
from watched import Watched
from weights import USUAL_PAIRS

import modular_manifolds as mm
from modular_manifolds.linalg.matrices import readable
from modular_manifolds.linalg.msign_gap import msign_gap
from modular_manifolds.solvers import TABLE, Solver, SpectralSphereDual
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.testing import MANIFOLD_LAWS, SOLVER_LAWS, Sample

Pair = tuple[mm.Manifold, mm.Norm, Solver]
Rooms = list[tuple[tuple[int, ...], torch.dtype]]
PAIRS: list[Pair] = [(kind(), norm(), solvers[0]) for (kind, norm), solvers in TABLE.items()]
"""Every pair, with its default solver."""
DISTINCT = [
    pair
    for pair in PAIRS
    if isinstance(pair[0], mm.Euclidean | mm.Stiefel) or not isinstance(pair[1], mm.RMSOperator)
]
"""Those whose operators differ: RMSOperator is Spectral in another unit."""
SPHERE = [each for each in DISTINCT if isinstance(each[0], mm.Sphere)][:1]


def is_usual(pair: Pair) -> bool:
    """Whether a plain run tries the pair in slow tests too."""
    return (type(pair[0]), type(pair[1])) in USUAL_PAIRS


def titled(pair: Pair) -> str:
    return f"{pair[0]} × {pair[1]}"


def accelerator_plan(
    manifold: mm.Manifold, norm: mm.Norm, solver: Solver, shape: tuple[int, ...], dtype: torch.dtype
) -> Plan:
    return solver.plan(manifold, norm, shape, dtype, "cuda")


# What is asked of a device.

DEVICE = "cuda"
"""torch without CUDA cannot index or invert fakes on it, so the accelerator's path does neither."""

WAITING = (
    "_linalg_svd",
    "_linalg_eigh",
    "linalg_qr",
    "linalg_cholesky.",
    "_linalg_solve_ex",
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
)
"""Operators that make the host wait for a device, some of them only to look for an error."""


class Watch(Watched):
    """Refuses operators that wait, and counts the others."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def see(self, func: Any, args: tuple[Any, ...]) -> None:
        del args
        self.seen += 1
        assert not any(each in str(func) for each in WAITING), f"{func} waits for the device"


@pytest.mark.parametrize("pair", mostly_long(DISTINCT, usual=is_usual), ids=titled)
def test_no_step_waits_for_the_device(pair: Pair) -> None:
    manifold, norm, solver = pair
    spectral = type(manifold) in (mm.SpectralBall, mm.SpectralSphere)
    # Large products leave out a block that symmetry gives.
    shapes = [(16, 64), (3, 32, 32), *([(600, 520)] if spectral else [])]
    for shape in shapes:
        plan = accelerator_plan(manifold, norm, solver, shape, torch.float32)
        with FakeTensorMode(), Watch() as watch, cases.Trying(shape):
            w, g = (torch.empty(shape, device=DEVICE) for _ in range(2))
            dual_shape = solver.dual_shape(shape)
            dual = None if dual_shape is None else torch.empty(dual_shape, device=DEVICE)
            found = plan.solve(w, g, dual)
            assert found.direction.device.type == DEVICE
            assert (found.direction.shape, found.direction.dtype) == (shape, torch.float32)
            assert manifold.tangent(w, g).shape == shape
            for length in (None, 0.1) if shape == shapes[0] else (3.0,):
                assert manifold.retract(w, g, length=length).shape == shape
        assert watch.seen > 0


def test_the_watch_sees_what_waits() -> None:
    """A decomposition, and a number that is read."""
    with FakeTensorMode(), Watch():
        x = torch.empty(4, 3, device=DEVICE)
        with pytest.raises(AssertionError, match="waits"):
            torch.linalg.svdvals(x)
        with pytest.raises(Exception, match=r"waits|data.dependent|[Ii]tem"):
            x.sum().item()


@pytest.mark.parametrize("pair", PAIRS, ids=titled)
def test_a_plan_is_a_value_that_reads_as_a_sentence(pair: Pair) -> None:
    manifold, norm, solver = pair
    for device in ("cpu", "cuda"):
        first, second = (solver.plan(manifold, norm, (30, 9), torch.float32, device) for _ in "ab")
        assert first == second
        assert hash(first) == hash(second)
        assert str(first).startswith("it ")
        assert " at 0x" not in str(first)


# The same computations with numbers.


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library believes that no number can be read, as on an accelerator."""
    for module in pkgutil.walk_packages(mm.__path__, "modular_manifolds."):
        if module.name.split(".")[1] in ("linalg", "manifolds", "norms", "solvers"):
            here = importlib.import_module(module.name)
            if getattr(here, "readable", None) is readable:
                monkeypatch.setattr(here, "readable", lambda _: False)


def on_accelerator(solver: Solver) -> Solver:
    """The solver, whose plans are those for an accelerator."""
    changed = copy.copy(solver)
    planned = solver.plan

    def plan(
        manifold: mm.Manifold,
        norm: mm.Norm,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device_type: str,
    ) -> Plan:
        del device_type
        return planned(manifold, norm, shape, dtype, "cuda")

    object.__setattr__(changed, "plan", plan)
    return changed


ROOMS: Rooms = [
    ((6, 3), torch.float64),
    ((3, 6), torch.float32),
    ((4, 4), torch.float32),
    ((5, 1), torch.float64),
    ((2, 3, 5, 4), torch.float64),
]
HALVES = mostly_long([ROOMS[1::3], [*ROOMS[::3], ROOMS[2]]], usual=2)


@pytest.mark.usefixtures("unreadable")
@pytest.mark.parametrize("pair", mostly_long(PAIRS, usual=is_usual), ids=titled)
@pytest.mark.parametrize("rooms", HALVES, ids=["few", "more"])
def test_the_laws_of_solvers(pair: Pair, rooms: Rooms) -> None:
    manifold, norm, solver = pair
    accuracy = norm.accuracy if solver.name == "norm-steepest" else 0.0
    for shape, dtype in rooms:
        if not cases.fits(manifold, shape):
            continue
        for law in SOLVER_LAWS:
            with cases.Trying(law, shape, dtype):
                sample = Sample(shape, dtype, accuracy=accuracy)
                law(on_accelerator(solver), manifold, norm, sample)


@pytest.mark.usefixtures("unreadable")
@pytest.mark.parametrize(
    "manifold",
    [mm.FixedGram(radius=2.2), mm.SpectralBall(), mm.SpectralSphere(radius=0.6)],
    ids=cases.name,
)
@pytest.mark.parametrize("rooms", HALVES, ids=["few", "more"])
def test_the_laws_of_manifolds(manifold: mm.Manifold, rooms: Rooms) -> None:
    for shape, dtype in rooms:
        for law in MANIFOLD_LAWS:
            # Such steps leave singular values below 1e-4 of the largest, which the polar factor by products does not reach.
            if isinstance(manifold, mm.FixedGram) and "not_tangent" in law.__name__:
                continue
            with cases.Trying(law, shape, dtype):
                law(manifold, Sample(shape, dtype))


@pytest.mark.parametrize("pair", PAIRS, ids=titled)
def test_nan_gives_a_gap_of_nan(pair: Pair) -> None:
    manifold, norm, solver = pair
    w, g = manifold.random((3, 6, 4)), torch.randn(3, 6, 4)
    g[1, 2] = torch.nan
    found = accelerator_plan(manifold, norm, solver, (3, 6, 4), torch.float32).solve(w, g)
    assert found.gap.isnan().tolist() == [False, True, False]
    assert bool(found.direction[1].isnan().any())


def gradients(shape: tuple[int, int]) -> dict[str, Tensor]:
    g = torch.randn(20, *shape)
    return {
        "normal": g,
        "of rank one": g[..., :1] @ g[..., :1, :],
        "uneven": g * torch.logspace(0, -6, shape[-1]),
        "sparse": torch.where(torch.rand(g.shape) > 0.8, g, 0.0),
    }


@pytest.mark.parametrize(
    ("manifold", "norm"),
    [
        (mm.SpectralSphere(), mm.Spectral()),
        (mm.SpectralSphere(), mm.RMSOperator()),
        (mm.Sphere(2.5), mm.Spectral()),
        (mm.Sphere(2.5), mm.RMSOperator()),
    ],
    ids=cases.name,
)
@pytest.mark.parametrize(
    "shape", mostly_long([(9, 40), (6, 3), (4, 4), (96, 64)], usual=4), ids=cases.name
)
def test_the_gap_by_one_multiplier_is_true_and_small(
    shape: tuple[int, int], manifold: mm.Manifold, norm: mm.Norm
) -> None:
    """Against decompositions in float64. A gradient of zero has no gap."""
    solver, tight = SpectralSphereDual(), SpectralSphereDual(tolerance=1e-6)
    w = manifold.random((20, *shape))
    plan = accelerator_plan(manifold, norm, solver, (20, *shape), torch.float32)
    deeper = plan.deeper()
    assert deeper is not None
    assert deeper.deeper() is None
    for kind, g in gradients(shape).items():
        exact = tight.solve(manifold, norm, w.double(), g.double(), None)
        steepest_descent = -(g * exact.direction).sum((-2, -1))
        cold = plan.solve(w, g)
        for found, bar in (
            (cold, plan.tolerance or 0.0),
            (plan.solve(w, g, cold.dual), 5e-3),
            (deeper.solve(w, g), 1e-3),
        ):
            with cases.Trying(kind, bar):
                descent = -(g * found.direction).sum((-2, -1))
                short = 1 - descent / steepest_descent.where(steepest_descent > 0, 1.0)
                short = short.where(steepest_descent > 0, 0.0)
                assert bool((short <= found.gap + 1e-5).all()), (short, found.gap)
                assert float(found.gap.max()) <= bar, found.gap
                assert bool((norm.value(found.direction) <= 1 + 1e-5).all())
                off = found.direction - manifold.tangent(w, found.direction)
                long = torch.linalg.vector_norm(found.direction, dim=(-2, -1))
                assert bool((torch.linalg.vector_norm(off, dim=(-2, -1)) <= 1e-4 * long).all())


@pytest.mark.usefixtures("unreadable")
@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_the_bound_of_muon_needs_no_look_at_the_gradient(size: float) -> None:
    """Scaled by its largest entry always, which changes the bound by rounding alone."""
    g = torch.randn(4, 40, 30)
    g[2] = 0.0
    a = mm.msign(g, accuracy=0.02, floor=0.01)
    found = msign_gap(size * g, a, accuracy=0.02, floor=0.01)
    expected = 1 - (g * a).sum((1, 2)) / torch.linalg.svdvals(g).sum(-1).clamp_min(1e-30)
    assert float(found[2]) == 0.0
    kept = [0, 1, 3]
    assert bool((expected[kept] <= found[kept]).all())
    assert bool((found[kept] <= expected[kept] + 0.065).all())


@pytest.mark.parametrize("pair", mostly_long(DISTINCT, usual=SPHERE.__contains__), ids=titled)
def test_a_compiler_sees_one_graph(pair: Pair) -> None:
    """Other pairs are compiled as whole steps in `test_compiled_step`."""
    manifold, norm, solver = pair

    def step(w: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        found = mm.steepest(manifold, norm, w, g, solver=solver)
        return manifold.retract(w, 0.1 * found.direction, length=0.2), found.gap

    torch.compiler.reset()
    w, g = manifold.random((12, 8)), torch.randn(12, 8)
    landed, gap = torch.compile(step, fullgraph=True, backend="aot_eager")(w, g)
    expected, expected_gap = step(w, g)
    torch.testing.assert_close(landed, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(gap, expected_gap, atol=1e-5, rtol=0)
