"""Live networks: forward values, names, spaces, and the numbers they declare, tried against what they compute."""

from __future__ import annotations

import copy
import math
import operator
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import cases
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import modular_manifolds as mm
from modular_manifolds.composition import VECTOR_NORMS
from modular_manifolds.errors import ArgumentError, SharedWeightError, SpaceError
from modular_manifolds.nn.bonds import GELU_SLOPE
from modular_manifolds.solvers import TABLE
from modular_manifolds.testing import Sample, check_module
from modular_manifolds.testing.measure import vector_norm

Formula = Callable[[Any], Any]

PAIRS = [(m, norm()) for kind, norm in TABLE for m in cases.instances(kind)]


def sorted_pairs(x: Tensor) -> Tensor:
    columns = list(x.unbind(-1))
    for i in range(0, len(columns) - 1, 2):
        a, b = columns[i], columns[i + 1]
        columns[i], columns[i + 1] = torch.maximum(a, b), torch.minimum(a, b)
    return torch.stack(columns, dim=-1)


BONDS: dict[type[mm.Bond], Formula] = {
    mm.Identity: lambda x: x,
    mm.ReLU: lambda x: torch.where(x > 0, x, 0.0),
    mm.Abs: lambda x: torch.maximum(x, -x),
    mm.GELU: lambda x: x * torch.special.ndtr(x) / 1.1289042,
    mm.MaxMin: sorted_pairs,
    mm.Flatten: lambda x: x.reshape(len(x), -1),
}


def linear(into: int, out: int, **arguments: Any) -> mm.Linear:
    """A linear map in l2, of any geometry."""
    return mm.Linear(into, out, **{"source_norm": "l2", "target_norm": "l2", **arguments})


sizes = st.integers(1, 4)


@st.composite
def networks(draw: st.DrawFn, into: int, out: int, depth: int = 3) -> tuple[mm.Module, Formula]:
    """A random network in float64, and the formula that it should compute."""

    def part(a: int, b: int) -> tuple[mm.Module, Formula]:
        return draw(networks(a, b, depth - 1))

    kinds = ["linear", "series", "sum", "scale"] + (["bond", "residual"] if into == out else [])
    match draw(st.sampled_from(kinds if depth else kinds[:1])):
        case "series":
            stops = [into, *draw(st.lists(sizes, max_size=2)), out]
            modules, formulas = zip(*(part(a, b) for a, b in pairwise(stops)), strict=True)
            return mm.Series(*modules), in_turn(formulas)
        case "sum":
            modules, formulas = zip(
                *(part(into, out) for _ in range(draw(st.integers(1, 3)))), strict=True
            )
            return mm.Sum(*modules), lambda x: torch.stack([f(x) for f in formulas]).sum(dim=0)
        case "scale":
            module, formula = part(into, out)
            factor = draw(st.floats(0.1, 3)) * draw(st.sampled_from([-1, 1]))
            return factor * module, lambda x: formula(x).mul(factor)
        case "residual":
            module, formula = part(into, out)
            times = draw(st.integers(1, 4))
            return mm.Residual(module, depth=times), lambda x: x + (formula(x) - x) / times
        case "bond":
            kind = draw(st.sampled_from(list(BONDS)))
            return kind(), BONDS[kind]
        case _:
            fitting = [(m, n) for m, n in PAIRS if cases.fits(m, (out, into))]
            manifold, norm = draw(st.sampled_from(fitting))
            atom = linear(into, out, manifold=manifold, norm=norm, mass=draw(st.floats(0, 3)))
            return atom.double(), lambda x: torch.einsum("oi,bi->bo", atom.weight, x)


def in_turn(formulas: tuple[Formula, ...]) -> Formula:
    def run(x: Any) -> Any:
        for formula in formulas:
            x = formula(x)
        return x

    return run


# What compositions compute.


@given(data=st.data())
def test_compositions_compute_their_formulas(data: st.DataObject) -> None:
    into, out = data.draw(sizes), data.draw(sizes)
    net, formula = data.draw(networks(into, out))
    x = torch.randn(5, into, dtype=torch.float64)
    torch.testing.assert_close(net(x), formula(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", BONDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("size", [1, 4, 7])
def test_bonds_compute_their_formulas(kind: type[mm.Bond], size: int) -> None:
    x = torch.randn(20, size, dtype=torch.float64)
    torch.testing.assert_close(kind()(x), BONDS[kind](x))


def test_leading_dimensions_are_kept() -> None:
    x = torch.randn(2, 3, 5)
    net = mm.Linear(5, 4) >> mm.MaxMin() >> mm.GELU() >> mm.Abs()
    assert net(x).shape == (2, 3, 4)
    torch.testing.assert_close(net(x)[1, 2], net(x[1, 2]))
    assert mm.Flatten()(x).shape == (2, 15)


def test_parallel_gives_a_tuple_and_bonds_take_it_part_by_part() -> None:
    f, g = mm.Linear(5, 4), mm.Linear(5, 3)
    x = torch.randn(2, 5)
    net = 2.0 * mm.Series(mm.Parallel(f, g), mm.Abs())
    first, second = net(x)
    torch.testing.assert_close(first, 2 * (x @ f.weight.mT).abs())
    torch.testing.assert_close(second, 2 * (x @ g.weight.mT).abs())
    assert net.target == mm.ProductSpace((mm.Space(4), mm.Space(3)))
    other = mm.Linear(5, 4) | mm.Linear(5, 3)
    for found, a, b in zip((net + other)(x), net(x), other(x), strict=True):
        torch.testing.assert_close(found, a + b)


def test_the_same_bond_may_stand_at_many_places() -> None:
    """Only weights may not be shared: a bond used twice acts twice."""
    relu = mm.ReLU()
    net = mm.Linear(3, 3) >> relu >> mm.Linear(3, 3) >> relu
    x = torch.randn(10, 3)
    assert len(net.tree().parts) == 4
    assert float(net(x).detach().min()) >= 0.0
    doubled = mm.Sum(relu, relu)
    assert doubled.sensitivity == 2.0
    torch.testing.assert_close(doubled(x), 2 * x.relu())
    assert len(mm.Parallel(relu, relu, relu)(x)) == 3


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_residual_is_its_formula_and_keeps_sensitivity_one(depth: int) -> None:
    block = mm.Linear(4, 6) >> mm.GELU() >> mm.Linear(6, 4)
    net = mm.Residual(block, depth=depth)
    x = torch.randn(7, 4)
    torch.testing.assert_close(net(x), (1 - 1 / depth) * x + block(x) / depth)
    assert net.sensitivity == pytest.approx(1.0)
    assert (net**depth).sensitivity == pytest.approx(1.0)
    assert net.mass == block.mass
    doubled = mm.Residual(2.0 * mm.Linear(4, 4), depth=depth)
    assert doubled.sensitivity == pytest.approx(1 + 1 / depth)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_residual_block_must_give_what_it_takes(depth: int) -> None:
    for block in (mm.Linear(3, 1), mm.Linear(3, 4), mm.Linear(3, 3, target_norm="l1")):
        with pytest.raises(SpaceError, match="must give one space"):
            mm.Residual(block, depth=depth)


# Names.


def deep() -> mm.Module:
    body = mm.Series(first=mm.Linear(4, 4), act=mm.ReLU(), last=mm.Linear(4, 4))
    return (
        mm.Linear(3, 4)
        >> mm.Residual(body, depth=2) ** 2
        >> (mm.Linear(4, 5) + 2.0 * mm.Linear(4, 5))
        >> mm.Series(mm.Parallel(query=mm.Linear(5, 2), key=-1.0 * mm.Linear(5, 2)), mm.MaxMin())
    )


def test_names_agree_everywhere() -> None:
    net = deep()
    paths = [path for path, _ in net.named_parameters()]
    assert len(paths) == 9
    assert list(net.state_dict()) == paths
    assert [row.path for row in mm.budget(net).rows] == paths
    assert list(net.manifold.manifolds) == paths
    assert list(net.modular_norm.norms) == list(net.modular_norm.shares) == paths
    assert [path for path, _ in net.geometries()] == paths
    parameters = {path: p.detach() for path, p in net.named_parameters()}
    assert max(float(r) for r in net.manifold.residual(parameters).values()) <= 1e-5
    net.manifold.check_shape({path: tuple(p.shape) for path, p in parameters.items()})


def test_a_weight_is_found_where_its_path_says() -> None:
    net = deep()
    for path, geometry in net.geometries():
        module_path, name = path.rsplit(".", 1)
        module = net.get_submodule(module_path)
        assert name == "weight"
        assert isinstance(module, mm.Linear)
        assert module.geometry is geometry


def test_nested_series_are_flattened() -> None:
    a, b, c, d = (mm.Linear(3, 3) for _ in range(4))
    expected = ["0.weight", "1.weight", "2.weight", "3.weight"]
    for net in (
        a >> b >> c >> d,
        (a >> b) >> (c >> d),
        a >> (b >> (c >> d)),
        mm.Series(a, mm.Series(b, mm.Series(c, d))),
        mm.Series(mm.Series(mm.Series(a, b), c), d),
    ):
        assert [name for name, _ in net.named_parameters()] == expected
        assert [p for _, p in net.named_parameters()] == [a.weight, b.weight, c.weight, d.weight]


def test_given_names_are_kept() -> None:
    net = mm.Series(encoder=mm.Linear(3, 3), act=mm.ReLU()) >> mm.Linear(3, 2)
    assert [name for name, _ in net.named_children()] == ["encoder", "act", "2"]
    longer = mm.Abs() >> net
    assert [name for name, _ in longer.named_children()] == ["0", "encoder", "act", "3"]
    nested = mm.Series(net, mm.Linear(2, 2))
    assert [name for name, _ in nested.named_parameters()] == [
        "0.encoder.weight",
        "0.2.weight",
        "1.weight",
    ]


def test_names_that_cannot_be_are_refused() -> None:
    with pytest.raises(
        ArgumentError, match=r"must not give two parts one name, got 'a' twice\. Rename"
    ):
        _ = mm.Series(a=mm.Linear(3, 3)) >> mm.Series(a=mm.Linear(3, 3))
    for name in ("forward", "mass", "tree", "training", "manifold"):
        with pytest.raises(
            ArgumentError,
            match=rf"Series\({name}=\.\.\.\) must not be a name that the module already has",
        ):
            mm.Series(**{name: mm.ReLU()})


def test_a_power_is_the_series_of_fresh_copies() -> None:
    block = mm.Linear(4, 4, mass=0.5) >> mm.ReLU() >> 0.5 * mm.Linear(4, 4)
    power = block**3
    series = mm.Series(*(copy.deepcopy(block) for _ in range(3)))
    assert power.mass == series.mass == 3 * block.mass
    assert power.sensitivity == series.sensitivity == block.sensitivity**3
    assert mm.budget(power).shares == mm.budget(series).shares
    weights = [p.detach() for p in power.parameters()] + [p.detach() for p in block.parameters()]
    assert len(weights) == 8
    for i, a in enumerate(weights):
        for b in weights[:i]:
            assert not torch.equal(a, b)
    x = torch.randn(5, 4)
    expected = x
    for w, v in zip(weights[0:6:2], weights[1:6:2], strict=True):
        expected = 0.5 * (expected @ w.mT).relu() @ v.mT
    torch.testing.assert_close(power(x), expected)
    assert (block**1).mass == block.mass


@pytest.mark.parametrize("times", [0, -1, 1.5, True, None])
def test_bad_powers_are_refused(times: int) -> None:
    with pytest.raises(ArgumentError, match=r"f \*\* n must have a positive whole n, got"):
        _ = mm.Linear(3, 3) ** times


def test_a_power_must_fit_itself() -> None:
    with pytest.raises(SpaceError, match=r"l2\[2\] into l2\[3\]"):
        _ = mm.Linear(3, 2) ** 2


# One weight, one place.


def shared() -> dict[str, tuple[Callable[[], mm.Module], str, str]]:
    f, g = mm.Linear(3, 3), mm.Linear(3, 3)
    tied = mm.Linear(3, 3)
    tied.weight = f.weight
    return {
        "series": (lambda: f >> f, "0.weight", "1.weight"),
        "parallel": (lambda: mm.Parallel(f, g, f), "0.weight", "2.weight"),
        "named": (lambda: mm.Parallel(query=f, key=f), "query.weight", "key.weight"),
        "sum": (lambda: f + -1.0 * f, "0.weight", "1.module.weight"),
        "deep": (
            lambda: (
                g >> mm.Residual(f >> mm.ReLU(), depth=2) >> (mm.Identity() + 2.0 * (mm.Abs() >> f))
            ),
            "1.block.0.weight",
            "2.1.module.1.weight",
        ),
        "tied": (lambda: f >> tied, "0.weight", "1.weight"),
    }


@pytest.mark.parametrize("name", shared())
def test_a_weight_at_two_places_is_refused_with_both_named(name: str) -> None:
    build, first, second = shared()[name]
    with pytest.raises(SharedWeightError) as caught:
        build()
    assert f"one weight at both '{first}' and '{second}'" in str(caught.value)
    assert "copy.deepcopy or f ** n" in str(caught.value)


# The tree is live.


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


# What does not fit is refused when composed.


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


# The numbers that modules declare.


@pytest.mark.parametrize("kind", BONDS, ids=lambda kind: kind.__name__)
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


@pytest.mark.parametrize("shape", [(4, 3), (2, 5), (1, 3), (3, 1)], ids=cases.name)
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
@pytest.mark.parametrize("shape", [(4, 3), (2, 5), (3, 3), (4, 1), (1, 4)], ids=cases.name)
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
        atom = mm.Linear(shape[1], shape[0], manifold=manifold, norm=mm.Frobenius(), **ends)
        reached = vector_norm(x @ w.mT, target) / vector_norm(x, source)
        assert float(reached.max()) <= atom.sensitivity * (1 + 1e-12), f"{source} to {target}"


@pytest.mark.parametrize("manifold", COMPACT, ids=cases.name)
def test_operator_bounds_from_l2_to_l2_are_attained(manifold: mm.Manifold) -> None:
    atom = mm.Linear(3, 4, manifold=manifold, norm=mm.Frobenius())
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


@pytest.mark.parametrize("name", laws_hold_for())
def test_networks_keep_the_laws(name: str) -> None:
    check_module(cases.in_double(laws_hold_for()[name]), Sample((5,), torch.float64))


class Gain(mm.Bond):
    """A bond with a fault, or none."""

    def __init__(self, gain: float = 1.0, shift: float = 0.0, **declared: float) -> None:
        super().__init__(**declared)  # pyright: ignore[reportArgumentType]
        self.gain, self.shift = gain, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x + self.shift


class Writes(mm.Bond):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp_(min=0)


class Understated(mm.Linear):
    """A linear map whose budget says that its steps move the output half as far as they do."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self._norm_constant = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def faults() -> dict[str, tuple[mm.Module, str]]:
    return {
        "slope": (Gain(gain=1.01), "sensitivity bounds the slope: measured"),
        "negative slope": (
            Gain(gain=-1.5, sensitivity=1.2),
            "sensitivity bounds the slope: measured",
        ),
        "offset": (Gain(shift=0.1), "give outputs within reach: measured"),
        "writes": (Writes(), "'input' was written into"),
        "norm constant": (Understated(), "a step of unit length moves the output: measured"),
    }


@pytest.mark.parametrize("name", faults())
def test_declared_numbers_that_are_wrong_are_refuted(name: str) -> None:
    module, message = faults()[name]
    with pytest.raises(AssertionError, match=message):
        check_module(cases.in_double(module), Sample((3,), torch.float64))


def test_declared_numbers_that_are_right_are_not() -> None:
    check_module(Gain(gain=-1.5, sensitivity=1.5))
    check_module(Gain(shift=0.1, offset=0.1 * 7))
    check_module(Fan(mm.Space(2)))
    with pytest.raises(ArgumentError, match="must take vectors"):
        check_module(Fan(mm.SAME))


def test_a_wrong_number_on_a_tuple_is_refuted() -> None:
    wrong = Fan(mm.Space(2))
    wrong.gain = 1.1
    with pytest.raises(AssertionError, match="sensitivity bounds the slope: measured"):
        check_module(wrong)


class Fan(mm.Bond):
    """Takes a tuple."""

    def __init__(self, first: Any) -> None:
        super().__init__(source=mm.ProductSpace((first, mm.Space(2))), target=mm.Space(2))
        self.gain = 1.0

    def forward(self, x: Any) -> Tensor:
        return x[0] + self.gain * x[1]


# As torch modules.


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=cases.name)
def test_networks_move_between_dtypes(dtype: torch.dtype) -> None:
    net = deep().to(dtype)
    assert {p.dtype for p in net.parameters()} == {dtype}
    assert all(each.dtype == dtype for each in net(torch.randn(2, 3).to(dtype)))
    residuals = net.manifold.residual({path: p.detach() for path, p in net.named_parameters()})
    allowed = {torch.float64: 1e-5, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    assert max(float(r) for r in residuals.values()) <= allowed


def test_resetting_in_double_is_exact_to_double() -> None:
    net = deep().double()
    net.reset_parameters()
    residuals = net.manifold.residual({path: p.detach() for path, p in net.named_parameters()})
    assert max(float(r) for r in residuals.values()) <= 1e-12


def test_copies_are_independent() -> None:
    net = deep()
    twin = copy.deepcopy(net)
    x = torch.randn(4, 3)
    for a, b in zip(net(x), twin(x), strict=True):
        assert torch.equal(a, b)
    assert mm.budget(twin) == mm.budget(net)
    twin.reset_parameters()
    for (path, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert not torch.equal(p, q), path
    points = {path: p.detach() for path, p in twin.named_parameters()}
    assert all(float(r) <= 1e-5 for r in twin.manifold.residual(points).values())


def test_state_dicts_load() -> None:
    net, other = deep(), deep()
    other.load_state_dict(net.state_dict())
    x = torch.randn(4, 3)
    for a, b in zip(net(x), other(x), strict=True):
        assert torch.equal(a, b)


def test_resetting_keeps_parameters_and_follows_the_seed() -> None:
    net = deep()
    kept = list(net.parameters())
    torch.manual_seed(3)
    net.reset_parameters()
    first = [p.detach().clone() for p in net.parameters()]
    torch.manual_seed(3)
    net.reset_parameters()
    assert all(p is q for p, q in zip(kept, net.parameters(), strict=True))
    assert all(torch.equal(a, p.detach()) for a, p in zip(first, net.parameters(), strict=True))


@pytest.mark.parametrize(("manifold", "norm"), PAIRS, ids=cases.name)
def test_weights_start_on_their_manifold_or_in_their_unit_ball(
    manifold: mm.Manifold, norm: mm.Norm
) -> None:
    atom = mm.Linear(5, 4, manifold=manifold, norm=norm)
    assert atom.weight.shape == (4, 5)
    assert float(manifold.residual(atom.weight.detach())) <= 1e-6
    if not manifold.compact:
        assert float(norm.value(atom.weight.detach())) == pytest.approx(1.0, abs=2e-3)


def test_defaults_are_manifold_muon() -> None:
    atom = mm.Linear(5, 4)
    assert atom.geometry == mm.Geometry(mm.Stiefel(), mm.Spectral())
    assert (atom.mass, atom.sensitivity) == (1.0, 1.0)
    assert (atom.source, atom.target) == (mm.Space(5), mm.Space(4))


def test_gradients_reach_every_weight() -> None:
    net = deep()
    first, second = net(torch.randn(8, 3))
    (first.square().sum() + second.square().sum()).backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in net.parameters())


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
