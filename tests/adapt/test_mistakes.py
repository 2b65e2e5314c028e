"""Mistakes: every one is refused in one line that says the argument, the rule, the value seen and the remedy."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
import torch
from mistaken_models import (
    Stack,
    all_frozen,
    frozen,
    mlp,
    normed,
    not_finite,
    padded,
    parametrized,
    pruned,
    shared_memory,
    trained,
)
from torch import nn
from zoo import PlainGPT

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError

Q: Final = "*.attn.c_attn.weight"
REST: Final = mm.Rule("*")


def raises(*_: Any) -> bool:
    raise KeyError("name")


def adapt(*rules: Any, of: Callable[[], Any] = mlp, **settings: Any) -> Callable[[], object]:
    return lambda: mm.adapt(of(), list(rules) if rules else None, **settings)


def loaded(
    change: Callable[[dict[str, Any]], object], model: Callable[[], nn.Module] = mlp
) -> Callable[[], object]:
    def read() -> object:
        values = json.loads(mm.adapt(mlp()).to_json())
        change(values)
        return mm.ModelPlan.from_json(json.dumps(values), model())

    return read


def twice_in_text() -> object:
    text = mm.adapt(mlp()).to_json()
    return mm.ModelPlan.from_json(text.replace('"by":', '"by": "mass", "by":'), mlp())


MISTAKES: Final[Mapping[str, tuple[Callable[[], object], tuple[str, ...]]]] = {
    "typo": (adapt(mm.Rule("*.wieght"), REST), ("Rule('*.wieght')", "no match", "'up.weight'")),
    "no match of a class": (
        adapt(mm.Rule(nn.Conv2d), REST),
        ("Rule(Conv2d)", "no match", "'Linear'"),
    ),
    "no match of a predicate": (
        adapt(mm.Rule(lambda *_: False), REST),
        ("no match", "'up.weight'"),
    ),
    "wrong case": (adapt(mm.Rule("UP.weight"), REST), ("no match", "'up.weight'")),
    "two matches": (
        adapt(mm.Rule("*.weight"), mm.Rule("up.weight"), REST),
        ("Rule('up.weight')", "claimed by Rule('*.weight')", "before that rule"),
    ),
    "unclaimed": (
        adapt(mm.Rule("*.weight")),
        ("'up.bias'", "closest is Rule('*.weight')", "mm.Rule('*')"),
    ),
    "parts do not divide": (
        adapt(mm.Rule("up.weight", split=mm.Split(parts=3)), REST),
        ("Rule('up.weight')", "16 outputs", "parts=3"),
    ),
    "heads do not divide": (
        adapt(mm.Rule(Q, split=mm.Split(parts=3, heads=5)), REST, of=PlainGPT),
        ("96 outputs", "heads=5"),
    ),
    "sizes do not add up": (
        adapt(mm.Rule("up.weight", split=mm.Split(sizes=(4, 4))), REST),
        ("16 outputs", "together 8"),
    ),
    "heads of several widths": (
        adapt(mm.Rule("up.weight", split=mm.Split(sizes=(12, 4), heads=(2, 2))), REST),
        ("one width", "heads=(32, 8, 8)"),
    ),
    "parts and sizes disagree": (
        lambda: mm.Split(parts=2, sizes=(1, 2, 3)),
        ("Split(", "2 of parts"),
    ),
    "no such dimension": (lambda: mm.Split(dim=2), ("Split(dim)", "transpose=True")),
    "wrong number of experts": (
        adapt(mm.Rule("w", split=mm.Split(experts=4)), of=Stack),
        ("4 experts", "(3, 4, 5)"),
    ),
    "split of a vector": (
        adapt(mm.Rule("up.*", split=mm.Split(parts=2)), REST),
        ("'up.bias'", "two dimensions", "(16,)"),
    ),
    "tied": (
        adapt(mm.Rule(nn.Embedding), mm.Rule(nn.Linear, manifold=mm.Stiefel()), REST, of=PlainGPT),
        ("tied weight 'wte.weight'", "Rule(Embedding)", "Rule(Linear)", "'lm_head.weight'"),
    ),
    "frozen": (
        adapt(mm.Rule("up.*"), REST, of=frozen),
        ("Rule('up.*')", "all frozen", "'up.weight'"),
    ),
    "transposed": (
        adapt(mm.Rule("up.weight", split=mm.Split(transpose=True)), REST),
        ("transpose", "(out, in)"),
    ),
    "a matrix manifold for a vector": (
        adapt(mm.Rule("up.*", manifold=mm.Stiefel()), REST),
        ("'up.bias'", "Stiefel", "needs a matrix"),
    ),
    "a manifold without this shape": (
        adapt(mm.Rule("up.bias", manifold=mm.BalancedRows(), norm=mm.RowRMS()), REST),
        ("'up.bias'", "rows of at least two", "(16,)"),
    ),
    "no solver for the pair": (
        adapt(mm.Rule("up.weight", manifold=mm.Stiefel(), norm=mm.Max()), REST),
        ("Rule('up.weight')", "Stiefel", "Max", "Use one of"),
    ),
    "no module": (lambda: mm.adapt(mlp().parameters()), ("adapt(model)", "generator")),  # pyright: ignore[reportArgumentType]
    "a class": (lambda: mm.adapt(nn.Linear), ("adapt(model)", "Linear", "its class")),  # pyright: ignore[reportArgumentType]
    "declared already": (
        lambda: mm.adapt(mm.Linear(4, 4, manifold=mm.Stiefel(), norm=mm.Spectral())),
        ("adapt(model)", "SteepestDescent directly"),
    ),
    "meta device": (adapt(of=lambda: mlp().to("meta")), ("'up.weight'", "meta", "to_empty")),
    "lazy": (adapt(of=lambda: nn.Sequential(nn.LazyLinear(3))), ("'0.weight'", "none yet")),
    "parametrized": (adapt(of=parametrized), ("parametrizations.weight.original'", "parametrize")),
    "weight norm": (adapt(of=normed), ("parametrizations.weight", "parametrize")),
    "pruned": (adapt(of=pruned), ("'up.weight_orig'", "L1Unstructured")),
    "complex": (
        adapt(of=lambda: nn.Linear(3, 3, dtype=torch.complex64)),
        ("'weight'", "must be real", "complex64"),
    ),
    "NaN": (adapt(of=not_finite), ("'up.weight'", "must be finite", "1 of 128")),
    "shared memory": (adapt(of=shared_memory), ("'up.weight' and 'down.weight'",)),
    "negative mass": (lambda: mm.Rule("*", mass=-1.0), ("Rule('*')(mass)", "positive", "-1.0")),
    "mass zero": (lambda: mm.Rule("*", mass=0.0), ("Rule('*')(mass)", "mm.Skip")),
    "a predicate that raises": (
        adapt(mm.Rule(raises)),
        ("Rule(raises)", "KeyError", "'up.weight'"),
    ),
    "a predicate without an answer": (
        adapt(mm.Rule(lambda *_: None)),  # pyright: ignore[reportArgumentType]
        ("True or False", "None for 'up.weight'"),
    ),
    "no rule": (adapt("up.weight"), ("adapt(rules[0])", "'up.weight'", "mm.Rule(")),
    "one rule": (lambda: mm.adapt(mlp(), mm.Rule("*")), ("adapt(rules)", "into a list")),  # pyright: ignore[reportArgumentType]
    "a match of the wrong type": (lambda: mm.Rule(3), ("Rule(match)", "3")),  # pyright: ignore[reportArgumentType]
    "a match that is a module": (
        lambda: mm.Rule(nn.Linear(2, 2)),
        ("Rule(match)", "a module, Linear"),
    ),
    "a class of a manifold": (
        lambda: mm.Rule("*", manifold=mm.Stiefel),  # pyright: ignore[reportArgumentType]
        ("manifold", "mm.Stiefel()"),
    ),
    "a padding row": (
        adapt(mm.Rule(nn.Embedding, manifold=mm.Oblique()), REST, of=padded),
        ("'0.weight'", "Oblique", "padding_idx=0"),
    ),
    "kept off its manifold": (
        adapt(mm.Rule("up.weight", manifold=mm.Stiefel()), REST, start="keep"),
        ("Rule('up.weight')", "residual", "start='project'"),
    ),
    "trained": (adapt(of=trained), ("adapt(start)", "'down.weight'", "force=True", "start='keep'")),
    "no weights": (adapt(of=nn.ReLU), ("adapt(model)", "without parameters")),
    "nothing trainable": (adapt(of=all_frozen), ("adapt(model)", "6 parameters, all frozen")),
    "unknown shape": (adapt(of=Stack), ("'w'", "(3, 4, 5)", "experts=True")),
    "unknown start": (adapt(start="keeps"), ("adapt(start)", "'keeps'")),
    "unknown split of the rate": (adapt(by="size"), ("adapt(by)", "'size'")),
    "bounds": (adapt(by="bound"), ("adapt(by)", "a declared network")),
    "measured on nothing": (adapt(by="measured"), ("adapt(by)", "example_inputs=batch")),
    "no rate": (lambda: mm.Fallback("*"), ("Fallback('*')(lr)", "lr=3e-4")),
    "bad betas": (
        lambda: mm.Fallback("*", lr=1e-3, betas=(0.9, 1.0)),
        ("Fallback('*')(betas)", "[0, 1)"),
    ),
    "names twice in the text": (twice_in_text, ("from_json(text)", "'by' twice")),
    "a row twice": (
        loaded(lambda values: values["rows"].append(values["rows"][0])),
        ("from_json(text)", "'up.weight' twice"),
    ),
    "a weight is missing": (
        loaded(lambda _: None, lambda: nn.Sequential(OrderedDict(up=nn.Linear(8, 16)))),
        ("from_json(model)", "lacks 'down.bias', 'down.weight', 'head.bias' and 1 more"),
    ),
    "a weight is new": (
        loaded(lambda values: values["rows"].pop(0)),
        ("from_json(model)", "also has 'up.weight'"),
    ),
    "a shape has changed": (
        loaded(lambda values: values["rows"][0].update(stored=[4, 4])),
        ("has 'up.weight' of shape (16, 8), not (4, 4)",),
    ),
    "a weight is frozen now": (
        loaded(lambda _: None, frozen),
        ("has frozen 'up.bias', 'up.weight'",),
    ),
    "no plan": (lambda: mm.ModelPlan.from_json("{}", mlp()), ("from_json(text)", "KeyError")),
    "an unknown manifold": (
        loaded(lambda values: values["rows"][0].update(manifold={"name": "torus"})),
        ("from_json(text)", "'torus'"),
    ),
    "another version": (loaded(lambda values: values.update(format=9)), ("format 1", "9")),
    "averages of another model": (
        lambda: mm.adapt(mlp()).project_(nn.Linear(2, 2)),
        ("project_(averaged)", "'up.weight'", "same model"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_says_what_is_wrong(mistake: str) -> None:
    call, said = MISTAKES[mistake]
    with pytest.raises(ArgumentError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for words in said:
        assert words in message
    for each in (caught.value.argument, caught.value.rule, caught.value.remedy):
        assert each
    assert ", got " in message


@pytest.mark.parametrize("of", [trained, not_finite, normed])
def test_a_refused_model_keeps_its_bits(of: Callable[[], nn.Module]) -> None:
    net = of()
    before = [each.detach().clone() for each in net.parameters()]
    with pytest.raises(ArgumentError):
        mm.adapt(net)
    for old, new in zip(before, net.parameters(), strict=True):
        assert torch.equal(old.nan_to_num(7), new.nan_to_num(7))
