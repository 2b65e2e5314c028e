"""The gradients of a step: the shard of each, and the largest entry of each unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.nn.sharded import is_sharded
from modular_manifolds.optim import foreach
from modular_manifolds.optim.gradients import check_gradient
from modular_manifolds.optim.sharded.units import Units
from modular_manifolds.optim.weight import Weight


@dataclass(frozen=True, eq=False)
class Entry:
    """A parameter in the flags of a step.

    Args:
        name: its path.
        parameter: a DTensor or a whole tensor.
        group: the number of its group.
        place: its place in the group.
        weights: its logical matrices; none if AdamW steps it.
        units: the units of its entries, if they lie in several shards or belong to several weights. Then the flags have
            one number for each unit, and otherwise one for the parameter.
    """

    name: str
    parameter: Tensor
    group: int
    place: int
    weights: tuple[Weight, ...]
    units: Units | None

    @property
    def names(self) -> list[str]:
        """The names of its weights."""
        return [each.name for each in self.weights] or [self.name]

    @property
    def counts(self) -> list[int]:
        """The number of flags of each weight."""
        return [1] if self.units is None else self.units.counts


def shard_of_gradient(name: str, parameter: Tensor) -> Tensor | None:
    """The entries of the gradient that this process holds; None without a gradient.

    A gradient that is placed in another way than its parameter is redistributed first, on every process.

    Raises:
        ArgumentError: the gradient is sparse.
    """
    gradient = parameter.grad
    if gradient is None:
        return None
    check_gradient(name, parameter)
    if not is_sharded(gradient):
        return gradient
    placements = parameter.placements  # pyright: ignore[reportAttributeAccessIssue]
    if tuple(gradient.placements) != tuple(placements):
        gradient = gradient.redistribute(placements=placements)
    return gradient.to_local()


def largest_entries(
    entries: Sequence[Entry], gradients: Sequence[Tensor | None], dtype: torch.dtype
) -> Tensor:
    """`max |G|` of each unit over the shards of this process, in the order of the entries."""
    simple = {
        i: gradient
        for i, (entry, gradient) in enumerate(zip(entries, gradients, strict=True))
        if gradient is not None and gradient.numel() and entry.units is None
    }
    found = foreach.largest_entries(list(simple.values()), dtype).split(1) if simple else ()
    flags: dict[int, Tensor] = dict(zip(simple, found, strict=True))
    for i, (entry, gradient) in enumerate(zip(entries, gradients, strict=True)):
        if gradient is not None and entry.units is not None:
            flags[i] = entry.units.largest(gradient, dtype)
        elif i not in flags:
            device = entry.parameter.device
            flags[i] = torch.zeros(sum(entry.counts), dtype=dtype, device=device)
    return torch.cat([flags[i] for i in range(len(entries))])
