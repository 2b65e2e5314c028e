"""The checks of processes that hold shards: each runs in every process, and `test_sharded_training` compares the results."""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.distributed as dist
from sharding import LAYOUTS, Twin, full_state, full_weights, model_and_plan
from torch import nn
from trained import MODELS, STEPS, backward, counting

import modular_manifolds as mm

WORLDS: Final = {"alone": (1,), "layouts": (4,)}
"""The numbers of processes in which a check runs; 2 and 4 if it is not here."""

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

    for _ in range(STEPS - 1):
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
    }


def check_alone() -> Any:
    return {name: trained(name, None) for name in MODELS}


def check_trained() -> Any:
    layouts = ("fsdp", "tp") if dist.get_world_size() == 2 else tuple(LAYOUTS)
    return {(name, layout): trained(name, layout) for layout in layouts for name in MODELS}
