"""Every module and model becomes a program for any batch: exported, traced, mapped over, called with other weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import cases
import pytest
import torch
from long_tests import mostly_long
from networks import MODELS
from torch import Tensor, fx, nn
from torch.func import functional_call, vmap
from torch.utils import _pytree as pytree

import modular_manifolds as mm
from modular_manifolds.testing import Sample
from modular_manifolds.testing.trials import draw_inputs, trials

TRACED, OTHER = 11, 7
"""The batch that a program is made with, and another one: sizes that no module has, which a tracer could confuse."""

AUTO = torch.export.Dim.AUTO
BATCH = torch.export.Dim("batch", min=1, max=512)


class Together(nn.Module):
    """Every module of the library on an input of its own: one program costs less than one for each."""

    def __init__(self, nets: dict[str, tuple[mm.Module, Callable[[int], Any]]]) -> None:
        super().__init__()
        self.names = list(nets)
        self.nets = nn.ModuleList(net for net, _ in nets.values())
        self.draws = [draw for _, draw in nets.values()]

    def forward(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(net(x) for net, x in zip(self.nets, inputs, strict=True))

    def draw_inputs(self, batch: int) -> tuple[Any, ...]:
        return tuple(draw(batch) for draw in self.draws)

    def check(self, found: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
        for name, mine, right in zip(self.names, found, expected, strict=True):
            # A program may sum in another order: a few dozen roundings of numbers near 1.
            torch.testing.assert_close(
                mine, right, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )


def tokens(batch: int, positions: int = 6) -> Tensor:
    return torch.arange(batch * positions).reshape(batch, positions) % 5


def inputs_of(net: mm.Module) -> Callable[[int], Any]:
    sample = Sample((6,), dtype=torch.float32)
    trial = next(iter(trials(net, sample)))
    return lambda batch: draw_inputs(trial, sample, f"x of {batch}", batch)


@cache
def modules() -> Together:
    nets = {f"{i} {case}": case.build() for i, case in enumerate(cases.MODULES)}
    return Together({name: (net, inputs_of(net)) for name, net in nets.items()})


@cache
def models() -> Together:
    nets = {name: build(**arguments) for name, (build, arguments) in MODELS.items()}
    return Together(
        {name: (net, tokens if name == "GPT" else inputs_of(net)) for name, net in nets.items()}
    )


def export(net: nn.Module, x: Any, sizes: dict[int, Any]) -> torch.export.ExportedProgram:
    shapes = (pytree.tree_map(lambda _: sizes, x),)
    return torch.export.export(net, (x,), dynamic_shapes=shapes, strict=False)


@pytest.mark.parametrize(
    ("build", "size"),
    mostly_long(
        [(modules, AUTO), (modules, BATCH), (models, AUTO)],
        usual=lambda case: case[0] is models,
        several=True,
    ),
    ids=["modules, any size", "modules, a named size", "models, any size"],
)
def test_an_exported_program_takes_any_batch(build: Callable[[], Together], size: Any) -> None:
    nets = build()
    program = export(nets, nets.draw_inputs(TRACED), {0: size})
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    given = inputs[-len(pytree.tree_leaves(nets.draw_inputs(1))) :]
    baked = [node.name for node in given if isinstance(node.meta["val"].shape[0], int)]
    assert not baked, "the batch's size became a number"
    for batch in (OTHER, 1):
        x = nets.draw_inputs(batch)
        again: Any = program.module()
        nets.check(again(x), nets(x))


@pytest.mark.parametrize("build", [modules, models], ids=["modules", "models"])
@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_a_traced_program_takes_any_batch(build: Callable[[], Together]) -> None:
    nets = build()
    traced: Any = torch.jit.trace(nets, (nets.draw_inputs(TRACED),), check_trace=False)
    by_symbols: list[Any] = [fx.symbolic_trace(net) for net in nets.nets]
    weights: dict[str, Tensor] = dict(nets.named_parameters())
    for batch in (OTHER, 1):
        x = nets.draw_inputs(batch)
        expected = nets(x)
        nets.check(traced(x), expected)
        in_turn = tuple(net(each) for net, each in zip(by_symbols, x, strict=True))
        nets.check(in_turn, expected)
        nets.check(functional_call(nets, weights, (x,)), expected)


@pytest.mark.parametrize("build", [modules, models], ids=["modules", "models"])
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_a_batch_may_be_mapped_over(build: Callable[[], Together]) -> None:
    nets = build()
    single = pytree.tree_map(lambda x: x.unsqueeze(1), nets.draw_inputs(3))
    apart = vmap(nets, randomness="same")(single)
    nets.check(pytree.tree_map(lambda y: y.squeeze(1), apart), nets(nets.draw_inputs(3)))


def test_the_number_of_positions_may_be_left_open_too() -> None:
    net = mm.Heads(8, 2, 4) >> mm.Rotary(4) >> mm.MergeHeads(2, 4)
    net = mm.Series(first=mm.Embedding(5, 8), then=net)
    queries = mm.Heads(8, 2, 4) >> mm.Rotary(4)
    attention = mm.Parallel(queries, mm.Heads(8, 1, 4), mm.Heads(8, 1, 4)) >> mm.CausalAttention(4)
    net = net >> attention >> mm.MergeHeads(2, 4)
    program = export(net, tokens(TRACED, 9), {0: BATCH, 1: torch.export.Dim("time", min=1, max=64)})
    for x in (tokens(4, 7), tokens(1, 1), tokens(3, 18)):
        torch.testing.assert_close(program.module()(x), net(x), atol=1e-5, rtol=1e-5)


def test_tracing_leaves_nothing_in_a_module() -> None:
    rotary = mm.Rotary(4)
    before = dict(vars(rotary))
    export(rotary, torch.randn(TRACED, 3, 4), {0: AUTO, 1: AUTO})
    assert vars(rotary) == before


def test_wrong_sizes_are_still_refused() -> None:
    for module in (mm.Conv2d(2, 3, 2, size=4), mm.MaxPool(2, 2, size=4), mm.Embedding(6, 4)):
        with pytest.raises(mm.errors.ArgumentError, match="features"):
            module(torch.zeros(2, 5))
