"""The optimiser of a run, and its learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from modular_manifolds.errors import SpecError
from modular_manifolds.nn import Module
from modular_manifolds.nn.sharded import is_sharded
from modular_manifolds.optim import SteepestDescent
from modular_manifolds.specs.optimizers import (
    AdamWSpec,
    MuonSpec,
    OptimizerSpec,
    SteepestDescentSpec,
)
from modular_manifolds.training.muon import Muon, MuonWithAdamW, all_muon


def build_optimizer(
    spec: OptimizerSpec, net: Module, *, shared: Any = None
) -> torch.optim.Optimizer:
    """The optimiser of `spec` on the weights of `net`; AdamW and Muon are torch's own.

    `shared` is the wrapper in which processes share `net`, for an optimiser that shares its work too.

    Muon steps all weights if all are single matrices; otherwise see `MuonWithAdamW`.

    Raises:
        SpecError: Muon is asked for on sharded weights, or there is no weight for it.
    """
    settings = spec.model_dump(exclude={"name"})
    match spec:
        case SteepestDescentSpec():
            return SteepestDescent(net if shared is None else shared, **settings)
        case AdamWSpec():
            return torch.optim.AdamW(net.parameters(), **settings)
        case MuonSpec():
            if any(map(is_sharded, net.parameters())):
                raise SpecError(
                    "optimizer.name",
                    "can be steepest-descent or adamw with parallel=fsdp",
                    "muon",
                    "Choose one of them, or parallel=ddp.",
                )
            if all_muon(net):
                return Muon(net.parameters(), **settings)
            return MuonWithAdamW(net, **settings)


def build_schedule(name: str, optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """The learning rate over `steps` steps: `linear` and `cosine` fall to zero."""
    shapes = {
        "constant": lambda _: 1.0,
        "linear": lambda step: max(0.0, 1.0 - step / steps),
        "cosine": lambda step: (1.0 + math.cos(math.pi * min(step, steps) / steps)) / 2.0,
    }
    return LambdaLR(optimizer, shapes[name])
