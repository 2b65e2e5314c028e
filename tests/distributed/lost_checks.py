"""Checks of processes that step other weights than the others, hang, or end: nobody waits for them forever."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from forked import results_folder
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.distributed_c10d import (
    _set_pg_timeout,  # pyright: ignore[reportPrivateUsage]
)
from torch.distributed.tensor import DTensor, Shard

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError

WORLDS: Final = {"stages": (2,), "tied": (1, 2), "stuck": (2,), "dead": (3,)}
SECONDS = 1
"""The time-out of a group with a stuck process."""


def replicated(group: Any, widths: tuple[int, ...] = (8, 8)) -> mm.SteepestDescent:
    """The optimiser of matrices that every process of the group holds."""
    return descent([nn.Parameter(torch.randn(width, 8)) for width in widths], owner=group)


def sharded(group: Any, widths: tuple[int, ...] = (8, 8)) -> mm.SteepestDescent:
    """The optimiser of matrices of which each process holds half of the rows."""
    mesh = DeviceMesh.from_group(group, "cpu")
    parameters = [
        nn.Parameter(DTensor.from_local(torch.randn(width // 2, 8), mesh, [Shard(0)]))
        for width in widths
    ]
    return descent(parameters)


def descent(parameters: list[nn.Parameter], **options: Any) -> mm.SteepestDescent:
    """Muon on parameters that have gradients."""
    for each in parameters:
        each.grad = torch.ones_like(each)
    group = {"params": parameters, "manifold": mm.Euclidean(), "norm": mm.Spectral()}
    return mm.SteepestDescent([group], 0.1, momentum=0.9, **options)


KINDS: Final[dict[str, Callable[..., mm.SteepestDescent]]] = {
    "replicated": replicated,
    "sharded": sharded,
}


def check_stages() -> Any:
    """Stages of a pipeline in one group: with another number of weights, and with other shapes."""
    found: dict[str, Any] = {}
    for kind, build in KINDS.items():
        for case, widths in (("fewer", (8,)), ("others", (8, 6))):
            opt = build(dist.group.WORLD, widths) if dist.get_rank() else build(dist.group.WORLD)
            before = [each.detach().clone() for each in opt.param_groups[0]["params"]]
            try:
                opt.step()
            except ArgumentError as error:
                rested = all(map(torch.equal, map(numbers, before), parameters_of(opt)))
                found[f"{kind}, {case}"] = str(error), rested
    return found


def parameters_of(opt: mm.SteepestDescent) -> list[Tensor]:
    return [numbers(each.detach()) for each in opt.param_groups[0]["params"]]


def numbers(tensor: Any) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def check_tied() -> Any:
    """A table that two stages use, each with its own optimiser: with and without the sum of their gradients."""
    found: dict[str, Any] = {}
    world = dist.get_world_size()
    for is_summed in (True, False):
        generator = torch.Generator().manual_seed(0)
        table = nn.Parameter(torch.randn(8, 6, generator=generator))
        group = {"params": [("table", table)], "manifold": mm.Euclidean(), "norm": mm.Spectral()}
        opt = mm.SteepestDescent([{**group, "share": 0.5}], 0.1, momentum=0.9)
        for _ in range(4):
            uses = [torch.randn(8, 6, generator=generator) for _ in range(2)]
            table.grad = uses[0] + uses[1] if world == 1 else uses[dist.get_rank()]
            if is_summed and world > 1:
                dist.all_reduce(table.grad)
            opt.step()
        found["summed" if is_summed else "apart"] = table.detach().clone()
    return found


def failure(opt: mm.SteepestDescent) -> tuple[str, str, float]:
    """Kind and notes of the error of a step, and the seconds after which it came."""
    begun = time.monotonic()
    try:
        opt.step()
    except RuntimeError as error:
        notes = " ".join(getattr(error, "__notes__", ()))
        return type(error).__name__, notes, time.monotonic() - begun
    return "no error", "", time.monotonic() - begun


def check_stuck() -> Any:
    """The second process does not step. The group is not to be used any more, and nor is that of the world."""
    group: Any = dist.new_group([0, 1])
    opt = replicated(group)
    opt.step()
    # Not at once: on a busy machine even the meeting of the processes takes seconds.
    _set_pg_timeout(timedelta(seconds=SECONDS), group)
    stepped = results_folder() / "the first process has stepped"
    found: dict[str, Any] = {}
    if dist.get_rank() == 0:
        found["replicated"] = failure(opt)
        stepped.touch()
    while not stepped.exists():
        time.sleep(0.01)
    return found


def check_dead() -> Any:
    """All processes but the first end. No check can follow."""
    opts = {kind: build(dist.group.WORLD) for kind, build in KINDS.items()}
    if dist.get_rank() > 0:
        torch.save((None, None), results_folder() / f"3-{dist.get_rank()}-dead.pt")
        os._exit(0)
    return {kind: failure(opt) for kind, opt in opts.items()}
