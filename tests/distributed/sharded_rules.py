"""Checks of sharded weights that take a few steps: settings, gradients that are missing or not finite, and every door."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any, Final

import torch
import torch.distributed as dist
from sharding import fsdp, full, full_state, full_weights, place, placed_like, world_mesh
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from trained import way_of

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError

HOW: Final[dict[str, Any]] = {"momentum": 0.9, "nesterov": True}

SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "plain": {"momentum": 0.0, "nesterov": False},
    "tangent": {"tangent_momentum": True},
    "damped": {"noise_damping": True},
    "sphere": {"manifold": mm.SpectralSphere(1.0)},
    "bfloat16": {"dtype": torch.bfloat16},
    "decay": {"manifold": mm.Euclidean(), "weight_decay": 0.1},
}


def give_gradients(
    model: nn.Module, seed: int, *, resting: Sequence[int] = (), half: Sequence[int] = ()
) -> None:
    """The same random gradients in every process; zero for some weights, and for the first half of others."""
    generator = torch.Generator().manual_seed(seed)
    for number, each in enumerate(model.parameters()):
        gradient = torch.randn(each.shape, generator=generator).to(each.dtype)
        if number in resting:
            gradient.zero_()
        if number in half:
            gradient[: (len(gradient) + 1) // 2] = 0
        each.grad = placed_like(each, gradient)


def is_sharded() -> bool:
    return dist.get_world_size() > 1


@contextmanager
def messages(found: dict[str, Any], name: str) -> Iterator[None]:
    """The message of an error of the library, or that there was none."""
    try:
        yield
        found[name] = "no error"
    except ArgumentError as error:
        found[name] = str(error)


def perceptron(**options: Any) -> tuple[nn.Module, mm.SteepestDescent]:
    """A perceptron, sharded if there are several processes."""
    how: dict[str, Any] = {**HOW, **options}
    manifold = how.pop("manifold", mm.Stiefel())
    dtype = how.pop("dtype", torch.float32)
    torch.manual_seed(0)
    net = mm.models.MLP(12, 5, hidden=(16, 16, 16), manifold=manifold).to(dtype)
    if is_sharded():
        fsdp(net)
    return net, mm.SteepestDescent(net, 0.02, **how)


def check_settings() -> Any:
    """Each setting on one way, which is another for the next setting."""
    return _with_settings(("host", "device"))


def check_more_settings() -> Any:
    """Each setting on the other way."""
    return _with_settings(("device", "host"))


def _with_settings(ways: tuple[str, str]) -> Any:
    """Train with each setting, by one way and the other in turn. One weight rests once, and one has a gradient in some shards."""
    found: dict[str, Any] = {}
    for (name, how), way in zip(SETTINGS.items(), cycle(ways), strict=False):
        net, opt = perceptron(**how)
        moved: list[bool] = []
        with way_of(way):
            for step in range(5):
                before = full_weights(net)
                resting = [0] if step == 3 else []
                give_gradients(net, step, resting=resting, half=[3] if step == 3 else [])
                opt.step()
                opt.check()
                after = full_weights(net)
                moved = (
                    moved if step != 3 else [not torch.equal(before[n], after[n]) for n in after]
                )
        found[f"{name}, {way}"] = full_weights(net), full_state(opt), moved
    return found


def check_rows() -> Any:
    """Rows and entries that lie in one shard and in several, of which some rest."""
    found: dict[str, Any] = {}
    for norm, manifold in ((mm.RowRMS(), mm.Euclidean()), (mm.Max(), mm.Euclidean())):
        for dim in (0, 1):
            for way in ("host", "device"):
                torch.manual_seed(0)
                model = nn.Linear(6, 9, bias=False)
                if is_sharded():
                    place(model, "weight", world_mesh(dist.get_world_size()), Shard(dim))
                group = {"params": model.named_parameters(), "manifold": manifold, "norm": norm}
                opt = mm.SteepestDescent([group], 0.02, **HOW)
                with way_of(way):
                    for step in range(4):
                        give_gradients(model, step, half=[0] if step == 2 else [])
                        opt.step()
                found[f"{norm}, {dim}, {way}"] = (
                    full_weights(model),
                    full_state(opt),
                    str(opt.placement),
                )
    return found


def check_stacks() -> Any:
    """A stack of experts with two matrices each, by experts and inside of experts."""
    found: dict[str, Any] = {}
    for dim in (0, 1, 2):
        for way in ("host", "device"):
            torch.manual_seed(0)
            model = nn.Module()
            model.register_parameter("weight", nn.Parameter(torch.randn(6, 8, 4)))
            if is_sharded():
                place(model, "weight", world_mesh(dist.get_world_size()), Shard(dim))
            split = mm.Split(experts=True, parts=2)
            group = {"params": model.named_parameters(), "manifold": mm.Euclidean()}
            opt = mm.SteepestDescent(
                [{**group, "norm": mm.Spectral(), "split": split}], 0.02, **HOW
            )
            with way_of(way):
                for step in range(4):
                    give_gradients(model, step, half=[0] if step == 2 else [])
                    opt.step()
            found[f"{dim}, {way}"] = full_weights(model), full_state(opt), str(opt.placement)
    return found


def everything(net: nn.Module, opt: mm.SteepestDescent) -> list[Tensor]:
    return [*full_weights(net).values(), *full_state(opt).values()]


def check_nonfinite() -> Any:
    """One process has a NaN in its own shard."""
    found: dict[str, Any] = {}
    for way in ("host", "device"):
        for on_nonfinite in ("raise", "skip"):
            net, opt = perceptron(on_nonfinite=on_nonfinite)
            messages_found: dict[str, str] = {}
            with way_of(way):
                give_gradients(net, 0)
                opt.step()
                before = everything(net, opt)
                give_gradients(net, 1)
                gradient = list(net.parameters())[1].grad
                assert isinstance(gradient, DTensor)
                if dist.get_rank() == 1:
                    gradient.to_local()[0, 0] = float("nan")
                with messages(messages_found, "step"):
                    opt.step()
                    opt.check()
                after = everything(net, opt)
                same = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
                give_gradients(net, 2)
                opt.step()
            found[f"{way}, {on_nonfinite}"] = (
                messages_found["step"],
                same,
                opt.skipped,
                full_weights(net),
            )
    return found


def check_missing() -> Any:
    """One process lacks a gradient."""
    found: dict[str, Any] = {}
    for way in ("host", "device"):
        net, opt = perceptron()
        with way_of(way):
            give_gradients(net, 0)
            opt.step()
            before = everything(net, opt)
            give_gradients(net, 1)
            if dist.get_rank() == 0:
                list(net.parameters())[1].grad = None
            with messages(found, way):
                opt.step()
                opt.check()
            after = everything(net, opt)
        found[f"{way} rests"] = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    return found


def check_unused() -> Any:
    """A weight without a gradient in any process rests, and the others move."""
    net, opt = perceptron()
    for step in range(3):
        give_gradients(net, step)
        if step:
            list(net.parameters())[2].grad = None
        opt.step()
    return full_weights(net)


def check_parallelized() -> Any:
    """torch's own tensor parallelism, which computes the gradients too, around an adapted model."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    plan = mm.adapt(model, progress=False)
    if is_sharded():
        mesh = world_mesh(dist.get_world_size())
        parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    opt = mm.SteepestDescent(plan, 0.02, **HOW)
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        opt.zero_grad()
        model(x).square().mean().backward()
        opt.step()
    return full_weights(model)


def check_adapted() -> Any:
    """A model that is sharded first and adapted afterwards, with both starts, and projected."""
    found: dict[str, Any] = {}
    starts: list[Any] = ["keep", "project"]
    for start in starts:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))
        if is_sharded():
            fsdp(model)
        plan = mm.adapt(model, start=start, progress=False)
        opt = mm.SteepestDescent(plan, 0.02, **HOW)
        give_gradients(model, 0)
        opt.step()
        with torch.no_grad():
            for each in model.parameters():
                each.mul_(1.5)
        mm.project_(plan)
        found[start] = full_weights(model)
        if is_sharded():
            with messages(found, f"{start}, measured"):
                plan.measure(torch.randn(4, 6))
    return found


def check_resume() -> Any:
    """Another optimiser loads the state, and goes on as the first; a state of whole tensors is refused."""
    found: dict[str, Any] = {}
    for manifold in (mm.Stiefel(), mm.SpectralSphere(1.0)):
        first, opt = perceptron(manifold=manifold)
        second, other = perceptron(manifold=manifold)
        for step in range(2):
            give_gradients(first, step)
            opt.step()
        second.load_state_dict(first.state_dict())
        whole = opt.state_dict()
        whole["state"] = {
            key: {name: full(each) for name, each in entries.items()}
            for key, entries in whole["state"].items()
        }
        with messages(found, f"{manifold}, whole"):
            other.load_state_dict(whole)
        other.load_state_dict(opt.state_dict())
        for net, each in ((first, opt), (second, other)):
            for step in range(2, 4):
                give_gradients(net, step)
                each.step()
        found[str(manifold)] = everything(first, opt), everything(second, other)
    return found
