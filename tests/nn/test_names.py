"""Weights have one name each, the same everywhere, and no weight stands at two places."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from small_networks import deep

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, SharedWeightError, SpaceError


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
