"""The tree of a network follows its modules, and modules that do not fit are refused when composed."""

from __future__ import annotations

import copy
import math
import operator
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, SpaceError


def test_the_tree_follows_the_modules() -> None:
    net = mm.Linear(3, 4) >> mm.ReLU() >> mm.Linear(4, 2, mass=3.0)
    assert (net.mass, net.sensitivity) == (4.0, 1.0)
    assert mm.budget(net).shares == {"0.weight": 0.25, "2.weight": 0.75}
    outer = mm.Residual(mm.Linear(3, 3), depth=2) >> net
    assert outer.mass == 5.0
    net.add_module("2", 0.5 * mm.Linear(4, 2, mass=7.0))
    assert (net.mass, net.sensitivity) == (8.0, 0.5)
    assert mm.budget(net).shares == {"0.weight": 0.25, "2.module.weight": 1.75}
    # The outer series took over the parts, so it has its own "2".
    assert outer.mass == 5.0
    wrapped = -2.0 * net
    assert wrapped.mass == 8.0
    net.add_module("0", mm.Linear(3, 4, mass=1.0, manifold=mm.Stiefel(radius=2.0)))
    assert (wrapped.mass, wrapped.sensitivity) == (8.0, 2.0)


def test_numbers_are_those_of_the_rules() -> None:
    f, g = mm.Linear(3, 3, mass=1.0), mm.Linear(3, 3, mass=3.0, manifold=mm.Stiefel(radius=2.0))
    assert ((f >> g).mass, (f >> g).sensitivity) == (4.0, 2.0)
    f, g = copy.deepcopy(f), copy.deepcopy(g)
    assert (mm.Parallel(f, g).mass, mm.Parallel(f, g).sensitivity) == (4.0, 3.0)
    assert (mm.Sum(f, g).mass, mm.Sum(f, g).sensitivity) == (4.0, 3.0)
    assert ((-3.0 * g).mass, (-3.0 * g).sensitivity) == (3.0, 6.0)
    assert (mm.Identity().mass, mm.Identity().sensitivity) == (0.0, 1.0)


def test_the_modular_norm_of_a_network_is_the_table_of_the_rules() -> None:
    """Series, scale and sum from MATH section 3, written out for one network."""
    f = mm.Linear(4, 4, mass=1.0)
    g = mm.Linear(4, 3, mass=2.0, manifold=mm.Stiefel(radius=2.0))
    h = mm.Linear(4, 3, mass=3.0, norm=mm.Frobenius())
    net = f >> (-0.5 * g + h)
    step = {path: torch.randn(p.shape) for path, p in net.named_parameters()}
    lengths = [
        float(norm.value(step[path]))
        for path, norm in zip(step, (mm.Spectral(), mm.Spectral(), mm.Frobenius()), strict=True)
    ]
    branches = max(0.5 * (5 / 2) * lengths[1], (5 / 3) * lengths[2])
    downstream = 0.5 * 2.0 + 1.0
    expected = max(downstream * 6 / 1 * lengths[0], 6 / 5 * branches)
    assert float(net.modular_norm.value(step)) == pytest.approx(expected)


def test_what_does_not_fit_is_refused_with_names_spaces_and_remedy() -> None:
    body = mm.Linear(8, 16) >> mm.ReLU()
    with pytest.raises(SpaceError) as caught:
        _ = body >> mm.Linear(10, 4)
    text = str(caught.value)
    # The bond gives on what it was given; the two that disagree are named, with their places.
    for part in (
        "ReLU at '1'",
        "Linear(10, 4) at '2'",
        "l2[16] into l2[10]",
        "Change a size or a norm",
    ):
        assert part in text
    assert "\n" not in text


def misfits() -> list[tuple[Callable[[], mm.Module], str]]:
    rms: dict[str, Any] = {"norm": mm.RMSOperator()}
    return [
        (lambda: mm.Linear(3, 4) >> mm.Linear(3, 4), r"Linear\(3, 4\) at '0' >> Linear\(3, 4\) at '1'"),
        (lambda: mm.Linear(3, 4) >> mm.Linear(4, 4, **rms), r"l2\[4\] into rms\[4\]"),
        (lambda: mm.Linear(3, 4) | mm.Linear(4, 4), r"Parallel of Linear\(3, 4\) at '0' and Linear\(4, 4\) at '1' must take one space"),
        (lambda: mm.Linear(3, 4) + mm.Linear(3, 5), r"Sum of .* must give one space, got l2\[4\] and l2\[5\]"),
        (lambda: mm.Identity() + mm.Linear(3, 4), "must give one space"),
        (lambda: (mm.Linear(3, 4) | mm.Linear(3, 4)) >> mm.Linear(4, 4), r"\(l2\[4\] \+ l2\[4\]\) into l2\[4\]"),
        (lambda: mm.Series(head=mm.Linear(3, 4), tail=mm.Linear(5, 3)), r"Linear\(3, 4\) at 'head' >> Linear\(5, 3\) at 'tail'"),
    ]  # fmt: skip


@pytest.mark.parametrize(("build", "message"), misfits(), ids=range(len(misfits())))
def test_misfits(build: Callable[[], mm.Module], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        build()


@pytest.mark.parametrize("other", [nn.ReLU(), nn.Linear(3, 3), 3, "relu", None, torch.relu])
def test_what_is_not_a_module_is_refused(other: Any) -> None:
    seen = f"got {type(other).__name__}. Declare it"
    for build in (
        lambda: mm.Series(mm.ReLU(), other),
        lambda: mm.Parallel(other, mm.ReLU()),
        lambda: mm.Sum(first=mm.ReLU(), second=other),
        lambda: mm.Scale(other, 2.0),
        lambda: mm.Residual(other, depth=2),
        lambda: mm.budget(other),
    ):
        with pytest.raises(ArgumentError, match=f"must be a modular_manifolds module, .*{seen}"):
            build()
    for operate in (lambda f: f >> other, lambda f: f | other, lambda f: f + other):
        with pytest.raises((TypeError, ArgumentError)):
            operate(mm.Linear(3, 3))


def test_a_torch_module_gets_a_remedy_of_its_own() -> None:
    with pytest.raises(
        ArgumentError,
        match=r"wrap the torch module in a class of your own that inherits mm\.Bond or mm\.Atom",
    ):
        mm.Series(nn.Linear(3, 3))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", [mm.Series, mm.Parallel, mm.Sum], ids=lambda kind: kind.__name__)
def test_nothing_to_compose_is_refused(kind: type[mm.Series]) -> None:
    with pytest.raises(
        ArgumentError, match=rf"{kind.__name__}\(modules\) must hold at least one module"
    ):
        kind()


@pytest.mark.parametrize("factor", [0.0, 0, math.nan, math.inf])
def test_bad_factors_are_refused(factor: float) -> None:
    with pytest.raises(ArgumentError, match=r"Scale\(factor\) must be finite and not 0, got"):
        _ = factor * mm.ReLU()


@pytest.mark.parametrize("depth", [0, -1, 2.0, True, None])
def test_bad_depths_are_refused(depth: int) -> None:
    with pytest.raises(
        ArgumentError, match=r"Residual\(depth\) must be a positive whole number, got"
    ):
        mm.Residual(mm.ReLU(), depth=depth)


def bad_linears() -> list[tuple[dict[str, Any], str]]:
    return [
        ({"in_features": 0}, r"Linear\(in_features\) must be a positive whole number, got 0"),
        ({"out_features": 2.0}, r"Linear\(out_features\) must be a positive whole number, got 2\.0"),
        ({"in_features": True}, r"Linear\(in_features\) must be a positive whole number, got True"),
        ({"mass": -1.0}, r"Linear\(mass\) must be finite and at least 0, got -1\.0"),
        ({"mass": math.nan}, r"Linear\(mass\) must be finite and at least 0, got nan"),
        ({"source_norm": "l3"}, r"Linear\(source_norm\) must be one of rms, l2, l1, linf, got 'l3'"),
        ({"target_norm": "max"}, r"Linear\(target_norm\) must be one of rms, l2, l1, linf, got 'max'"),
        ({"manifold": "stiefel"}, r"manifold must be a Manifold, got 'stiefel'. Pass an instance such as Stiefel\(\)"),
        ({"norm": mm.Spectral}, r"norm must be a Norm, got .*Spectral'>. Pass an instance such as Spectral\(\)"),
    ]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), bad_linears())
def test_bad_linears_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        mm.Linear(**{"in_features": 3, "out_features": 2, **arguments})


def test_defaults_are_manifold_muon() -> None:
    atom = mm.Linear(5, 4)
    assert atom.geometry == mm.Geometry(mm.Stiefel(), mm.Spectral())
    assert (atom.mass, atom.sensitivity) == (1.0, 1.0)
    assert (atom.source, atom.target) == (mm.Space(5), mm.Space(4))


def test_networks_read_well() -> None:
    net = mm.Linear(3, 4, mass=2.0) >> 0.5 * mm.Residual(mm.Linear(4, 4), depth=3)
    text = repr(net)
    for part in ("Stiefel × Spectral, mass=2", "factor=0.5", "depth=3"):
        assert part in text


def test_modules_can_be_built_again_from_their_arguments() -> None:
    for module in (
        mm.Linear(
            3, 4, manifold=mm.Stiefel(2.0), norm=mm.RMSOperator(), mass=0.5, source_norm="l1"
        ),
        mm.Scale(mm.Linear(3, 3), -2.0),
        mm.Residual(mm.Linear(3, 3), depth=4),
        mm.Series(a=mm.Linear(3, 3), b=mm.ReLU()),
        mm.GELU(),
    ):
        build: Any = type(module)
        twin = build(**module.arguments())
        assert mm.budget(twin) == mm.budget(module)
        assert twin.tree() == module.tree()


@pytest.mark.parametrize("symbol", [">>", "|", "+"])
def test_operators_refuse_torch_modules_in_words(symbol: str) -> None:
    apply = {">>": operator.rshift, "|": operator.or_, "+": operator.add}[symbol]
    message = re.escape(f"f {symbol} g must be a modular_manifolds module")
    with pytest.raises(ArgumentError, match=message):
        apply(mm.Linear(3, 3), torch.nn.ReLU())
    with pytest.raises(TypeError):
        apply(mm.Linear(3, 3), 3)
