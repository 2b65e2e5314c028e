"""Networks are built on the meta device without any computation, and drawn later where they are to live."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import cases
import pytest
import torch
from networks import MODELS
from surroundings import default_dtype
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.solvers import TABLE

BUILDS: dict[str, Callable[[], mm.Module]] = {
    **{f"{i} {case}": case.build for i, case in enumerate(cases.MODULES)},
    **{name: lambda name=name: MODELS[name][0](**MODELS[name][1]) for name in MODELS},
    **{
        f"{manifold} × {norm.__name__}": lambda m=manifold, n=norm: mm.Linear(
            4, 3, manifold=m, norm=n()
        )
        for manifold in cases.MANIFOLDS
        for kind, norm in TABLE
        if kind is type(manifold)
    },
}
"""Every module, every model, and a weight of every pair of manifold and norm."""

TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 0.05}
"""How far off its manifold a small weight may lie: a few roundings, at most a dozen in bfloat16."""


def on_meta(build: Callable[[], mm.Module]) -> mm.Module:
    with torch.device("meta"):
        return build()


def emptied(net: mm.Module) -> mm.Module:
    """The network on the CPU, its memory as bad as it can be."""
    net.to_empty(device="cpu")
    with torch.no_grad():
        for weight in net.parameters():
            weight.fill_(torch.nan)
    return net


def residuals(net: mm.Module) -> list[float]:
    weights = {path: weight.detach() for path, weight in net.named_parameters()}
    return [float(each.amax()) for each in net.manifold.residual(weights).values()]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=cases.name)
def test_weights_drawn_later_are_on_their_manifolds(dtype: torch.dtype) -> None:
    for name, build in BUILDS.items():
        with default_dtype(dtype):
            net = emptied(on_meta(build))
        net.reset_parameters()
        assert all(weight.dtype == dtype for weight in net.parameters()), name
        assert all(off <= TOLERANCES[dtype] for off in residuals(net)), name


def test_a_network_drawn_later_is_the_one_that_is_built_at_once() -> None:
    for name, build in BUILDS.items():
        later = emptied(on_meta(build))
        at_once = build()
        torch.manual_seed(5)
        later.reset_parameters()
        torch.manual_seed(5)
        at_once.reset_parameters()
        expected = at_once.state_dict()
        for path, weight in later.state_dict().items():
            assert torch.equal(weight, expected[path]), f"{name}: {path}"
        assert later.tree() == build().train(later.training).tree(), name


def test_a_weight_on_the_meta_device_costs_no_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(*_: object, **__: object) -> Tensor:
        raise AssertionError("a weight was drawn")

    monkeypatch.setattr(Geometry, "initial", drawn)
    for build in BUILDS.values():
        net = on_meta(build)
        assert all(weight.is_meta for weight in net.parameters())
        net.reset_parameters()
        copy.deepcopy(net)
        str(net)


def test_only_values_are_refused_on_the_meta_device(tmp_path: Path) -> None:
    build = BUILDS["MLP"]
    net = on_meta(build)
    assert str(mm.budget(net, lr=0.1)) == str(mm.budget(build(), lr=0.1))
    assert mm.NetworkSpec.from_module(net) == mm.NetworkSpec.from_module(build())
    assert net.modular_norm.shares == build().modular_norm.shares
    for ask in (
        mm.conditioning,
        mm.lipschitz,
        mm.activations,
        lambda net: mm.robustness(net, torch.zeros(1, 6), torch.zeros(1, dtype=torch.long)),
        lambda net: mm.local_lipschitz(net, torch.zeros(6), radius=1.0),
        lambda net: mm.save(net, tmp_path / "net.safetensors"),
        lambda net: mm.SteepestDescent(net, lr=0.1),
    ):
        with pytest.raises(
            ArgumentError, match=r"must have weights with values, got '0\.weight' .*meta"
        ):
            ask(net)


def test_networks_are_built_where_torch_only_makes_believe() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        net = BUILDS["ConvNet"]()
    with pytest.raises(ArgumentError, match="must have weights with values"):
        mm.conditioning(net)


def test_weights_with_values_are_drawn_where_they_live_whatever_the_default_device() -> None:
    net = BUILDS["GPT"]()
    before = copy.deepcopy(net.state_dict())
    with torch.device("meta"):
        net.reset_parameters()
        output = net(torch.zeros(2, 3, dtype=torch.long, device="cpu"))
    assert not any(weight.is_meta for weight in net.parameters())
    assert not all(torch.equal(before[path], weight) for path, weight in net.state_dict().items())
    assert output.device.type == "cpu"


def test_tables_of_positions_follow_the_network_from_the_meta_device() -> None:
    net = on_meta(BUILDS["GPT"])
    assert net(torch.zeros(2, 3, dtype=torch.long, device="meta")).is_meta
    emptied(net).reset_parameters()
    fresh = BUILDS["GPT"]()
    fresh.load_state_dict(net.state_dict())
    tokens = torch.arange(6).reshape(2, 3) % 5
    assert torch.equal(net(tokens), fresh(tokens))
