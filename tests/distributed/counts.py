"""The way of a step, host or accelerator, and the counts of its solves and of the bytes of its collectives."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import modular_manifolds as mm
from modular_manifolds.optim import on_device, on_host, settings, whole
from modular_manifolds.optim.sharded import decision, rows


@contextmanager
def way_of(name: str) -> Iterator[None]:
    """While inside, steps go the way of the host, or that of an accelerator, which reads no number."""
    on = [whole, decision, on_device, rows, settings]
    modules: list[Any] = on if name == "device" else []
    known = [(each, each.readable) for each in modules]
    try:
        for module, _ in known:
            module.readable = lambda _: False
        yield
    finally:
        for module, readable in known:
            module.readable = readable


@dataclass
class Counts:
    """Solves of matrices by polynomials or decompositions, and bytes of collectives, in one process."""

    solves: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)


class _Collectives(TorchDispatchMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        if func.namespace == "c10d":
            name = func.overloadpacket.__name__
            given = args[0][0] if "reduce" in name else args[1]
            self.counts.sent[name] += given.numel() * given.element_size()
            if "alltoall" in name:
                # A process sends nothing to itself.
                self.counts.sent[name] -= args[4][dist.get_rank()] * given.element_size()
            self.counts.calls[name] += 1
        return func(*args, **(kwargs or {}))


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
