"""Wherever a network is taken: wrappers are looked through, and weights that are tied or computed are refused in words."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, SharedWeightError
from modular_manifolds.wrappers import unwrapped

WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "compiled": lambda net: torch.compile(net, backend="eager"),
    "parallel": nn.DataParallel,
    "averaged": AveragedModel,
    "averaged, compiled, parallel": lambda net: nn.DataParallel(
        torch.compile(AveragedModel(net), backend="eager")  # pyright: ignore[reportArgumentType]
    ),
    "compiled, averaged": lambda net: AveragedModel(torch.compile(net, backend="eager")),  # pyright: ignore[reportArgumentType]
}


def small() -> mm.Module:
    return mm.Linear(6, 4) >> mm.ReLU() >> mm.Linear(4, 4) >> mm.ReLU() >> mm.Linear(4, 2)


def doors(folder: Path) -> dict[str, Callable[[Any], Any]]:
    """Everything that takes a network, and something that its answer can be told by."""
    x, labels = torch.randn(3, 6), torch.zeros(3, dtype=torch.long)

    def saved(net: Any) -> str:
        mm.save(net, folder / "net.safetensors")
        return str(mm.load(folder / "net.safetensors").state_dict())

    return {
        "SteepestDescent": lambda net: [
            (g["param_names"], g["shares"], [p.tolist() for p in g["params"]])
            for g in mm.SteepestDescent(net, lr=0.1).param_groups
        ],
        "budget": lambda net: str(mm.budget(net, lr=0.1)),
        "lipschitz": lambda net: str(mm.lipschitz(net, starts=1, iterations=1)),
        "activations": lambda net: str(mm.activations(net)),
        "robustness": lambda net: str(mm.robustness(net, x, labels)),
        "local_lipschitz": lambda net: str(mm.local_lipschitz(net, x[0], radius=1e-3)),
        "conditioning": lambda net: str(mm.conditioning(net)),
        "save": saved,
        "NetworkSpec": mm.NetworkSpec.from_module,
    }


DOORS = list(doors(Path()))


@contextmanager
def in_one_process() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_door_looks_through_every_wrapper(wrapper: str, tmp_path: Path) -> None:
    net = small()
    wrapped = WRAPPERS[wrapper](net)
    # An average starts as a copy of the network.
    assert (unwrapped(wrapped) is net) == ("averaged" not in wrapper)
    for name, ask in doors(tmp_path).items():
        assert ask(wrapped) == ask(net), name


def test_a_step_moves_the_weights_inside_the_wrapper() -> None:
    net = small()
    compiled: Any = torch.compile(net, backend="eager")
    before = net.state_dict()["0.weight"].clone()
    optimizer = mm.SteepestDescent(compiled, lr=0.1)
    compiled(torch.randn(3, 6)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(net.state_dict()["0.weight"], before)


def test_distributed_networks_are_looked_through_and_refused_in_compositions(
    tmp_path: Path,
) -> None:
    net = small()
    with in_one_process():
        wrapped: Any = nn.parallel.DistributedDataParallel(net)
        for name, ask in doors(tmp_path).items():
            assert ask(wrapped) == ask(net), name
        for compose in (
            lambda f: f >> mm.ReLU(),
            lambda f: mm.Identity() >> f,
            lambda f: mm.Series(WRAPPERS["compiled"](f)),
        ):
            with pytest.raises(ArgumentError, match=r"`wrapped\.module`, and wrap the composition"):
                compose(wrapped)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_compositions_take_the_network_inside(wrapper: str) -> None:
    wrapped, x = WRAPPERS[wrapper](small()), torch.randn(3, 6)
    inside: mm.Module = unwrapped(wrapped)
    y = inside(x)
    for composed, expected in (
        (wrapped >> mm.ReLU(), y.relu()),
        (mm.Scale(mm.Identity(), 2.0) >> wrapped, inside(2 * x)),
        (mm.Scale(wrapped, 2.0), 2 * y),
        (mm.Sum(wrapped), y),
        (mm.Series(head=wrapped), y),
    ):
        torch.testing.assert_close(composed(x), expected)
        assert not [path for path in composed.state_dict() if "_orig_mod" in path]
        assert composed.tree().signature.mass == 3.0
    assert [type(y) for y in (wrapped | mm.Linear(6, 2), mm.Linear(6, 2) | wrapped)] == 2 * [
        mm.Parallel
    ]
    assert [type(y) for y in (wrapped + mm.Linear(6, 2), mm.Linear(6, 2) + wrapped)] == 2 * [mm.Sum]


def test_what_was_not_declared_here_keeps_its_remedy_inside_a_wrapper() -> None:
    for wrapped in (
        nn.DataParallel(nn.Linear(3, 3)),
        torch.compile(nn.Linear(3, 3), backend="eager"),
    ):
        with pytest.raises(ArgumentError, match=r"got Linear\. .*inherits mm\.Bond or mm\.Atom"):
            mm.budget(wrapped)  # pyright: ignore[reportArgumentType]
        with pytest.raises(ArgumentError, match=r"f >> g must be .*inherits mm\.Bond or mm\.Atom"):
            wrapped >> mm.ReLU()  # pyright: ignore


def test_a_part_that_was_replaced_by_something_else_is_refused_and_not_left_out() -> None:
    for other in (torch.compile(mm.ReLU(), backend="eager"), nn.Dropout()):
        net = small()
        net.add_module("1", other)  # pyright: ignore[reportArgumentType]
        for ask in (
            mm.budget,
            mm.conditioning,
            lambda net: net(torch.randn(2, 6)),
            lambda net: net.mass,
        ):
            with pytest.raises(
                ArgumentError, match=r"Series\(1\) must be .*in place with net\[i\]\.compile"
            ):
                ask(net)


def tied_by_name(net: mm.Module) -> None:
    net.get_submodule("2").weight = net.get_submodule("0").weight


def tied_by_memory(net: mm.Module) -> None:
    net.get_submodule("2").weight.data = net.get_submodule("0").weight.data  # pyright: ignore


@pytest.mark.parametrize("tie", [tied_by_name, tied_by_memory])
def test_weights_tied_later_are_refused_with_both_paths_at_every_door(
    tie: Callable[[mm.Module], None], tmp_path: Path
) -> None:
    net = mm.Linear(6, 6) >> mm.ReLU() >> mm.Linear(6, 6)
    tie(net)
    own = {
        "tree": lambda net: net.tree(),
        "mass": lambda net: net.mass,
        "manifold": lambda net: net.manifold,
        "modular_norm": lambda net: net.modular_norm,
        "compose": lambda net: net >> mm.ReLU(),
        "scale": lambda net: 2.0 * net,
        "residual": lambda net: mm.Residual(net, depth=2),
        "check_module": mm.testing.check_module,
        "compiled": lambda net: mm.budget(torch.compile(net, backend="eager")),  # pyright: ignore
    }
    for ask in [*doors(tmp_path).values(), *own.values()]:
        with pytest.raises(SharedWeightError, match=r"0\.weight' and '\S*2\.weight'"):
            ask(net)


def test_tied_weights_are_found_inside_scales_and_residuals() -> None:
    net = mm.Scale(mm.Linear(6, 6) >> mm.ReLU() >> mm.Linear(6, 6), 2.0)
    tied_by_name(net.module)
    residual = mm.Residual(mm.Linear(6, 6) >> mm.Linear(6, 6), depth=2)
    residual.block.get_submodule("1").weight = residual.block.get_submodule("0").weight
    for each in (net, residual):
        for ask in (lambda f: f.tree(), lambda f: f**2):
            with pytest.raises(SharedWeightError):
                ask(each)


def pruned(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", amount=0.5)


def parametrised(layer: nn.Module) -> None:
    parametrize.register_parametrization(layer, "weight", nn.Identity())


def weight_normed(layer: nn.Module) -> None:
    parametrizations.weight_norm(layer)


def weight_normed_of_old(layer: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(layer)


@pytest.mark.parametrize(
    ("change", "source"),
    [
        (pruned, "2.weight_orig"),
        (parametrised, "2.parametrizations.weight.original"),
        (weight_normed, "2.parametrizations.weight.original0"),
        (weight_normed_of_old, "2.weight_g"),
    ],
)
def test_weights_computed_from_others_are_refused_with_both_names(
    change: Callable[[nn.Module], None], source: str, tmp_path: Path
) -> None:
    net = small()
    change(net.get_submodule("2"))
    for name in ("SteepestDescent", "budget", "save"):
        with pytest.raises(ArgumentError, match=r"must have '2\.weight' as a parameter") as caught:
            doors(tmp_path)[name](net)
        assert f"'{source}'" in str(caught.value)
