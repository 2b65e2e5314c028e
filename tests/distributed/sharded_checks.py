"""The checks of processes that hold shards: each runs in every process, and `test_sharded_training` compares the results."""

from __future__ import annotations

import tempfile
from typing import Any, Final, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as checkpoint
from collective_counts import counting
from forked import long_tests_run, plain_tests_run
from gradient_checks import check_compiled as check_compiled
from gradient_checks import check_llama as check_llama
from gradient_checks import check_placed as check_placed
from gradient_checks import check_placed_nonfinite as check_placed_nonfinite
from gradient_checks import check_sequence_parallel as check_sequence_parallel
from row_checks import check_rows_choice as check_rows_choice
from row_checks import check_rows_empty as check_rows_empty
from row_checks import check_rows_trained as check_rows_trained
from row_checks import check_rows_without_host_reads as check_rows_without_host_reads
from sharded_cases import ALL, USUAL
from sharded_rules import check_adapted as check_adapted
from sharded_rules import check_missing as check_missing
from sharded_rules import check_more_settings as check_more_settings
from sharded_rules import check_nonfinite as check_nonfinite
from sharded_rules import check_parallelized as check_parallelized
from sharded_rules import check_resume as check_resume
from sharded_rules import check_rows as check_rows
from sharded_rules import check_settings as check_settings
from sharded_rules import check_stacks as check_stacks
from sharded_rules import check_unused as check_unused
from sharded_rules import everything, give_gradients, is_sharded, perceptron
from sharding import (
    LAYOUTS,
    Twin,
    fsdp,
    full,
    full_state,
    full_weights,
    model_and_plan,
    place,
    shard_of,
    world_mesh,
)
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from trained import MODELS, backward, steps

import modular_manifolds as mm
from modular_manifolds.nn.boxes import cut
from modular_manifolds.optim.sharded.crew import Crews
from modular_manifolds.optim.sharded.layout import layout_of

WORLDS: Final = {
    "alone": (1,),
    "layouts": (4,),
    "trained": (2, 4),
    "nonfinite": (2,),
    "missing": (2,),
    "resume": (2,),
    "saved": (2,),
    "settings": (1, 2),
    "more_settings": (1, 2),
    "rows": (1, 2, 4),
    "stacks": (1, 2),
    "unused": (1, 2),
    "named": (1, 2, 4),
    "parallelized": (1, 2),
    "adapted": (1, 2),
    "placed": (1, 2),
    "placed_nonfinite": (2,),
    "sequence_parallel": (1, 2),
    "llama": (1, 2),
    "compiled": (2,),
    "rows_choice": (2,),
    "rows_empty": (4,),
    "rows_trained": (2,),
    "rows_without_host_reads": (2,),
}
"""The numbers of processes in which a check runs. Only long tests have worlds of four."""
LONG: Final = {name: WORLDS[name] for name in ("more_settings", "llama", "compiled")}
"""Those in which only long tests need a check."""
PLAIN: Final = {
    "named": (2,),
    "rows": (2,),
    **{name: WORLDS[name] for name in ("nonfinite", "missing", "resume", "saved")},
    **{name: WORLDS[name] for name in ("settings", "stacks", "unused", "parallelized")},
    **{name: WORLDS[name] for name in ("adapted", "rows_choice", "rows_without_host_reads")},
    **{name: WORLDS[name] for name in ("placed", "placed_nonfinite", "sequence_parallel")},
}
"""Those in which no long test needs it."""

HOW: Final[dict[str, Any]] = {"momentum": 0.9, "nesterov": True}


def trained(name: str, layout: str | None, **options: Any) -> dict[str, Any]:
    """Train for some steps, and count in the last. FSDP2 computes its own gradients, others have them from a twin."""
    model, plan = model_and_plan(name)
    start = full_weights(model)
    twin = Twin(model)
    if layout is not None:
        LAYOUTS[layout](model)
    opt = mm.SteepestDescent(plan, 0.02, **{**HOW, **options})

    def give_gradients(model: nn.Module = model) -> None:
        if layout in (None, "fsdp", "hsdp"):
            backward(name, model)
        else:
            twin.give_gradients(model, name)

    for _ in range(steps() - 1):
        give_gradients()
        opt.step()
    give_gradients()
    with counting() as counts:
        opt.step()
    return {
        "start": start,
        "weights": full_weights(model),
        "state": full_state(opt),
        "counts": counts,
        "placement": opt.placement,
        "held": {name: shard_of(each).numel() for name, each in model.named_parameters()},
    }


def check_alone() -> Any:
    usual = {name for _, _, name in USUAL}
    return {name: trained(name, None) for name in MODELS if name in usual or long_tests_run()}


SHAPES: Final = ((7, 5), (8, 8), (3, 2), (2,), (1, 9), (5, 3, 2))


def check_layouts() -> Any:
    """The shard of this process by torch, and by the box of its layout, for every placement that is known."""
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    plane, line = world_mesh(2, 2), world_mesh(4)
    for shape in SHAPES:
        whole = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
        placements = [Replicate(), *(Shard(dim) for dim in range(len(shape)))]
        for mesh, placed in [
            *((line, [each]) for each in placements),
            *((plane, [a, b]) for a in placements for b in placements),
        ]:
            pairs[f"{shape} {placed}"] = _both_shards(distribute_tensor(whole, mesh, placed), whole)
        for dim in range(len(shape)):
            # FSDP2 splits the shards of tensor parallelism, along the same dimension or another one.
            module = nn.Module()
            module.register_parameter("weight", nn.Parameter(whole.clone()))
            mesh = world_mesh(2, 2, names=("dp", "tp"))
            place(module, "weight", mesh["tp"], Shard(dim))
            fully_shard(module, mesh=mesh["dp"])
            weight = module.get_parameter("weight").detach()
            assert torch.equal(full(weight), whole)
            pairs[f"{shape} fsdp over {dim}"] = _both_shards(weight, whole)
    return {name: both for name, both in pairs.items() if not torch.equal(*both)}, len(pairs)


def _both_shards(tensor: Any, whole: Tensor) -> tuple[Tensor, Tensor]:
    layout = layout_of(tensor, Crews().of(tensor.device_mesh), name="weight")
    sources = [cut(whole, layout.boxes[rank]) for rank in layout.sources(owner=0)]
    assert sum(each.numel() for each in sources) == whole.numel()
    assert len({float(x) for each in sources for x in each.flatten()}) == whole.numel()
    found, expected = shard_of(tensor), cut(whole, layout.own)
    return (found, expected) if expected.numel() else (found.flatten(), expected.flatten())


def check_trained() -> Any:
    return {
        (name, layout): trained(name, layout)
        for world, layout, name in ALL
        if world == dist.get_world_size()
        and (plain_tests_run() if (world, layout, name) in USUAL else long_tests_run())
    }


NAMED: Final[dict[str, Any]] = {
    "Muon": lambda params: mm.optim.Muon(params, 0.02),
    "ManifoldMuon": lambda params: mm.optim.ManifoldMuon(params, 0.02),
    "MuonSphere": lambda params: mm.optim.MuonSphere(params, 0.02),
    "SignDescent": lambda params: mm.optim.SignDescent(params, 0.02),
    "adamw": lambda params: mm.SteepestDescent(
        [{"params": params, "optimizer": "adamw", "lr": 0.01}], 0.1
    ),
}


def check_named() -> Any:
    """The methods with names of their own, on bare parameters."""
    found: dict[str, Any] = {}
    for name, build in NAMED.items():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 9, bias=False), nn.Linear(9, 3, bias=False))
        if is_sharded():
            fsdp(model)
        opt = build(list(model.parameters()))
        for step in range(3):
            give_gradients(model, step)
            opt.step()
        found[name] = full_weights(model)
    return found


def check_saved() -> Any:
    """A checkpoint of torch.distributed, which another optimiser loads and goes on from."""
    first, opt = perceptron(manifold=mm.SpectralSphere(1.0), dtype=torch.bfloat16)
    second, other = perceptron(manifold=mm.SpectralSphere(1.0), dtype=torch.bfloat16)
    for step in range(2):
        give_gradients(first, step)
        opt.step()
    folder, saved = [tempfile.mkdtemp()], cast("Any", checkpoint)
    dist.broadcast_object_list(folder)
    model, state = get_state_dict(first, opt)
    saved.save({"model": model, "state": state}, checkpoint_id=folder[0])
    model, state = get_state_dict(second, other)
    saved.load({"model": model, "state": state}, checkpoint_id=folder[0])
    set_state_dict(second, other, model_state_dict=model, optim_state_dict=state)
    for net, each in ((first, opt), (second, other)):
        for step in range(2, 4):
            give_gradients(net, step)
            each.step()
    return everything(first, opt), everything(second, other)
