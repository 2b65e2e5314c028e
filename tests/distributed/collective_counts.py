"""Counts of solves and of the bytes of collectives. Results hold them, so this file imports little."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist
from torch import Tensor
from watched import Watched

import modular_manifolds as mm
from modular_manifolds.optim import on_device, on_host


@dataclass
class Counts:
    """Solves of matrices by polynomials or decompositions, and bytes of collectives, in one process."""

    solves: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)


class _Collectives(Watched):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def see(self, func: Any, args: tuple[Any, ...]) -> None:
        if func.namespace == "c10d":
            name = func.overloadpacket.__name__
            given = args[0][0] if "reduce" in name else args[1]
            self.counts.sent[name] += given.numel() * given.element_size()
            if "alltoall" in name:
                # A process sends nothing to itself.
                own = dist.ProcessGroup.unbox(args[2]).rank()
                self.counts.sent[name] -= args[4][own] * given.element_size()
            self.counts.calls[name] += 1


@contextmanager
def counting() -> Iterator[Counts]:
    """While inside, solves and collectives are counted."""
    counts = Counts()
    modules: list[Any] = [on_host, on_device]
    ways = [(each, each.take_planned_step) for each in modules]

    def counted(way: Callable[..., Any]) -> Callable[..., Any]:
        def take(geometry: mm.Geometry, plan: Any, point: Tensor, *rest: Any) -> Any:
            spectral = isinstance(geometry.norm, mm.Spectral | mm.RMSOperator)
            if spectral and min(point.shape[-2:]) > 1:
                counts.solves += math.prod(point.shape[:-2])
            return way(geometry, plan, point, *rest)

        return take

    try:
        for module, way in ways:
            module.take_planned_step = counted(way)
        with _Collectives(counts):
            yield counts
    finally:
        for module, way in ways:
            module.take_planned_step = way
