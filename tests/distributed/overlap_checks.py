"""The checks of messages that leave in the backward pass: each runs in every process, and `test_overlap` compares the results."""

from __future__ import annotations

import copy
import gc
import pickle
import time
import weakref
from typing import Any, Final

import torch
import torch.distributed as dist
from collective_counts import counting
from forked import long_tests_run, plain_tests_run
from overlap_rules import backward_of_shards, both, counts_of
from overlap_rules import check_changed as check_changed
from overlap_rules import check_missing as check_missing
from overlap_rules import check_more_changed as check_more_changed
from overlap_rules import check_nonfinite as check_nonfinite
from overlap_rules import check_rounds as check_rounds
from sharded_rules import HOW, SETTINGS, everything, messages, perceptron
from sharding import (
    LAYOUTS,
    fsdp,
    full_weights,
    model_and_plan,
    tensor_parallel,
    world_mesh,
)
from torch import Tensor, nn
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from trained import backward, steps, way_of

import modular_manifolds as mm

TWO: Final = (
    "trained",
    "parallelized",
    "settings",
    "more_settings",
    "changed",
    "more_changed",
    "rounds",
    "missing",
    "nonfinite",
    "life",
)
WORLDS: Final[dict[str, tuple[int, ...]]] = {**dict.fromkeys(TWO, (2,)), "meshes": (4,)}
"""The numbers of processes in which a check runs."""
LONG: Final[dict[str, tuple[int, ...]]] = {"more_settings": (2,), "more_changed": (2,)}
"""Those in which only long tests need a check."""
PLAIN: Final[dict[str, tuple[int, ...]]] = {
    name: (2,) for name in TWO if name != "trained" and name not in LONG
}
"""Those in which no long test needs it."""


def check_trained() -> Any:
    names = [*(["gpt"] * plain_tests_run()), *(["mlp", "gpt2"] * long_tests_run())]
    return {name: both(trained, name) for name in names}


def trained(overlap: bool, name: str) -> Any:
    """FSDP2 with gradients of its own."""
    model, plan = model_and_plan(name)
    fsdp(model)
    opt = mm.SteepestDescent(plan, 0.02, **HOW, overlap=overlap)
    for _ in range(steps() - 1):
        backward(name, model)
        opt.step()
    with counting() as counts:
        backward(name, model)
        before = counts.calls["alltoall_base_"]
        opt.step()
    return everything(model, opt), counts, before, opt.placement


def check_meshes() -> Any:
    """Parameters on a mesh of two dimensions, and others on a part of it."""
    return {layout: both(on_meshes, layout) for layout in ("hsdp", "fsdp_tp")}


def on_meshes(overlap: bool, layout: str) -> Any:
    model, plan = model_and_plan("gpt2")
    LAYOUTS[layout](model)
    opt = mm.SteepestDescent(plan, 0.02, **HOW, overlap=overlap)
    for step in range(3):
        opt.zero_grad()
        backward_of_shards(model, step)
        opt.step()
    return everything(model, opt), counts_of(opt), {each.ranks for each in crews_of(opt)}


def crews_of(opt: mm.SteepestDescent) -> list[Any]:
    steps: Any = opt._steps  # pyright: ignore[reportPrivateUsage]
    return [each.crew for each in steps._owners.members]


def check_parallelized() -> Any:
    return both(parallelized)


def parallelized(overlap: bool) -> Any:
    """torch's own tensor parallelism around an adapted model."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    plan = mm.adapt(model, progress=False)
    placed = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    parallelize_module(model, world_mesh(dist.get_world_size()), placed)
    opt = mm.SteepestDescent(plan, 0.02, **HOW, overlap=overlap)
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        opt.zero_grad()
        model(x).square().mean().backward()
        opt.step()
    return everything(model, opt), counts_of(opt)


ON_HOST: Final = ("plain", "tangent", "damped", "sphere", "bfloat16")
ON_DEVICE: Final = ("tangent", "bfloat16")
USUAL: Final = (("tangent", "device"), ("damped", "host"), ("bfloat16", "host"))
"""The settings and ways of a plain run."""


def check_settings() -> Any:
    """Some settings. One process has its gradients later, and in another order; a weight rests."""
    return {f"{name}, {way}": both(with_settings, SETTINGS[name], way) for name, way in USUAL}


def check_more_settings() -> Any:
    """The others, and some on the device's way."""
    every = [*((name, "host") for name in ON_HOST), *((name, "device") for name in ON_DEVICE)]
    others = [each for each in every if each not in USUAL]
    return {f"{name}, {way}": both(with_settings, SETTINGS[name], way) for name, way in others}


def with_settings(overlap: bool, how: dict[str, Any], way: str) -> Any:
    net, opt = perceptron(**how, overlap=overlap)
    for step in range(2):
        net.zero_grad()
        if dist.get_rank() == 1 and overlap:
            time.sleep(0.01)
        with way_of(way):
            resting = [0] if step else []
            backward_of_shards(net, step, resting=resting, reverse=dist.get_rank() == 1)
            opt.step()
            opt.check()
    return everything(net, opt), counts_of(opt)


def hooks_of(net: nn.Module) -> int:
    return sum(len(each._post_accumulate_grad_hooks or ()) for each in net.parameters())  # pyright: ignore


def _stepped(net: nn.Module, opt: mm.SteepestDescent) -> dict[str, Tensor]:
    net.zero_grad()
    backward_of_shards(net, 0)
    opt.step()
    return full_weights(net)


def check_life() -> Any:
    """Hooks end with the optimiser, which keeps no model alive, and copies have none."""
    model = nn.Sequential(nn.Linear(6, 9, bias=False), nn.Linear(9, 6, bias=False))
    tensor_parallel(model)
    group = {"params": model.named_parameters(), "manifold": mm.Euclidean(), "norm": mm.Spectral()}
    opt = mm.SteepestDescent([group], 0.02, **HOW, overlap=True)
    found: dict[str, Any] = {"hooks": hooks_of(model)}
    copies = [copy.deepcopy((model, opt)), pickle.loads(pickle.dumps((model, opt)))]
    found["copies"] = [(hooks_of(net), counts_of(each)) for net, each in copies]
    found["weights"] = [_stepped(*each) for each in [(model, opt), *copies]]
    found["keys"] = "overlap" in repr(opt.state_dict())
    alive = weakref.ref(model), weakref.ref(opt)
    gc.collect()
    gc.disable()
    try:
        del opt, copies
        found["after"] = hooks_of(model), alive[1]() is None
        del model
        found["alive"] = alive[0]() is not None
    finally:
        gc.enable()
    with messages(found, "no owners"):
        model = nn.Sequential(nn.Linear(6, 9, bias=False))
        fsdp(model)
        group = {"params": list(model.parameters()), "optimizer": "adamw", "lr": 0.01}
        mm.SteepestDescent([group], 0.1, overlap=True)
    return found
