"""A compiled step is one graph, stays one graph while the rate changes, and leads where the other step leads."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import reduce
from typing import Any

import pytest
import torch
from long_tests import mostly_long
from torch._dynamo.utils import counters
from weights import PAIRS, Weight, give_gradient

import modular_manifolds as mm
from modular_manifolds.errors import NonFiniteError

pytestmark = [
    # A scheduler looks for its wrapper of `opt.step`, which a step that was compiled before does not have.
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
    # The default compiler's own.
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]

STEPS = 20
COMPARED = 5
USUAL = ((mm.Euclidean, mm.RMSOperator), (mm.Stiefel, mm.Spectral))
"""Pairs whose whole step a plain run compiles. `test_accelerator_plans` compiles the direction and the retraction of another one."""
HOW: dict[str, Any] = {"momentum": 0.9, "nesterov": True}


@pytest.fixture(autouse=True)
def forget_compiled_code() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()
    counters.clear()


def network(manifold: mm.Manifold, norm: mm.Norm) -> mm.Module:
    """Two weights of one shape, which are stepped as one, and a stack."""
    shapes = ((6, 4), (6, 4), (2, 4, 4))
    return reduce(lambda f, g: f >> g, (Weight(manifold, norm, shape) for shape in shapes))


def check_compiled(
    net: mm.Module, *, backend: str, close: float = 1e-6, **how: Any
) -> mm.SteepestDescent:
    """Step a network by a compiled step and a twin of it by the other one."""
    twin = copy.deepcopy(net)
    opt = mm.SteepestDescent(net, torch.tensor(0.1), **how)
    other = mm.SteepestDescent(twin, torch.tensor(0.1), **how)
    # A scheduler wraps `opt.step` in code that torch's compiler refuses, so it comes second.
    step = torch.compile(opt.step, fullgraph=True, backend=backend)
    schedules = [
        torch.optim.lr_scheduler.LinearLR(each, 1.0, 0.1, total_iters=STEPS)
        for each in (opt, other)
    ]
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    graphs: list[int] = []
    for number in range(STEPS):
        for module, generator in zip((net, twin), generators, strict=True):
            for p in module.parameters():
                give_gradient(p, generator)
        step()
        graphs.append(counters["stats"]["unique_graphs"])
        if number < COMPARED:
            other.step()
            for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
                torch.testing.assert_close(ours, theirs, atol=close, rtol=0)
        for schedule in schedules:
            schedule.step()
    assert not counters["graph_break"]
    assert graphs == [1] * STEPS
    return opt


@pytest.mark.parametrize(
    ("manifold", "norm"),
    mostly_long(PAIRS, usual=lambda pair: pair in USUAL, several=True),
    ids=[f"{m.__name__}-{n.__name__}" for m, n in PAIRS],
)
def test_every_pair_is_one_graph_that_stays(
    manifold: type[mm.Manifold], norm: type[mm.Norm]
) -> None:
    """The graph and its guards are those of every backend, so the backend that compiles nothing will do."""
    check_compiled(network(manifold(), norm()), backend="eager", **HOW)


@pytest.mark.long
@pytest.mark.parametrize(
    ("manifold", "norm"), [(mm.Euclidean, mm.RowRMS), (mm.Stiefel, mm.Spectral)]
)
def test_the_default_compiler_leads_to_the_same_weights(
    manifold: type[mm.Manifold], norm: type[mm.Norm]
) -> None:
    check_compiled(network(manifold(), norm()), backend="inductor", **HOW)


@pytest.mark.long
def test_every_setting_compiles() -> None:
    rows = network(mm.Euclidean(), mm.RowRMS())
    check_compiled(rows, backend="eager", **HOW, noise_damping=True, weight_decay=0.1)
    torch.compiler.reset()
    counters.clear()
    sphere = Weight(mm.Sphere(), mm.Max(), (6, 4))
    check_compiled(sphere, backend="eager", **HOW, tangent_momentum=True)
    torch.compiler.reset()
    counters.clear()
    half = network(mm.Euclidean(), mm.Frobenius()).to(torch.bfloat16)
    check_compiled(half, backend="eager", **HOW, close=4e-3)


def test_a_compiled_step_leaves_out_what_is_not_finite_and_tells_when_asked() -> None:
    net = network(mm.Euclidean(), mm.Max())
    opt = mm.SteepestDescent(net, torch.tensor(0.1), momentum=0.9)
    step = torch.compile(opt.step, fullgraph=True, backend="aot_eager")
    generator = torch.Generator().manual_seed(0)
    for p in net.parameters():
        give_gradient(p, generator)
    step()
    before = [each.clone() for p in net.parameters() for each in (p, *opt.state[p].values())]
    bad = net.get_parameter("2.weight")
    assert bad.grad is not None
    bad.grad[0, 0] = torch.nan
    step()
    after = [each for p in net.parameters() for each in (p, *opt.state[p].values())]
    assert all(map(torch.equal, before, after))
    with pytest.raises(NonFiniteError, match=r"the gradient of '2\.weight' .* an earlier step"):
        opt.check()
    opt.check()
    for p in net.parameters():
        give_gradient(p, generator)
    step()
    assert not torch.equal(next(net.parameters()), before[0])
