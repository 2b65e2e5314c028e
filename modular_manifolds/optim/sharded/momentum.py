"""The momentum of shards: it is updated entry by entry, without communication, and gives the direction for the owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.optim import foreach
from modular_manifolds.optim.sharded.members import Member
from modular_manifolds.optim.sharded.units import Units

Group = Mapping[str, Any]


@dataclass(frozen=True)
class Shard:
    """The shard of one member in a step.

    Args:
        member: the member.
        gradient: its gradient, in full precision; None without one.
        momentum: its momentum; None without one.
        units: the units of its entries.
        reached: whether each unit has a nonzero gradient on some process; false for all if the step is cancelled.
        active: whether each unit has a share above 0; None if all have.
    """

    member: Member
    gradient: Tensor | None
    momentum: Tensor | None
    units: Units
    reached: Tensor
    active: Tensor | None = None


def directions(
    shards: Sequence[Shard], groups: Sequence[Group], ok: Tensor | None
) -> list[Tensor | None]:
    """Update the momenta; return the solver's input for each shard, and None without a gradient.

    The input is the gradient or the momentum, and zero in units that no process reaches, as in
    `on_host.averaged_gradient`.

    Args:
        shards: the shards of this process.
        groups: the parameter groups.
        ok: whether the step is taken, on the device; None if it is.
    """
    found: list[Tensor | None] = [None] * len(shards)
    alike: dict[tuple[int, torch.dtype], list[int]] = {}
    for i, each in enumerate(shards):
        if each.gradient is None:
            continue
        if not each.gradient.numel():
            found[i] = each.gradient
        elif each.momentum is None:
            found[i] = _masked(each.gradient, each)
        else:
            alike.setdefault((each.member.group, each.gradient.dtype), []).append(i)
    for (index, _), members in alike.items():
        stepped = _advance([shards[i] for i in members], groups[index], ok)
        for i, each in zip(members, stepped, strict=True):
            found[i] = each
    return found


def _advance(shards: Sequence[Shard], group: Group, ok: Tensor | None) -> list[Tensor]:
    mu = group["momentum"]
    gradients = [each.gradient for each in shards if each.gradient is not None]
    momenta = [each.momentum for each in shards if each.momentum is not None]
    if ok is not None:
        # Zero if the step is cancelled, so that no NaN spreads.
        gradients = [torch.where(ok, each, 0.0) for each in gradients]
    paused = [
        (each, each.momentum.clone())
        for each in shards
        if each.active is not None and each.momentum is not None
    ]
    factor = torch.full((), mu, dtype=momenta[0].dtype, device=momenta[0].device)
    foreach.multiply_(momenta, factor if ok is None else torch.where(ok, factor, 1.0))
    foreach.add_(momenta, gradients, alpha=1 - mu)
    for each, before in paused:
        assert each.momentum is not None
        assert each.active is not None
        each.momentum.copy_(torch.where(each.units.mask(each.active), each.momentum, before))
    if ok is None:
        for each in shards:
            _drop_denormals_(each)
    if not group["nesterov"]:
        return [_masked(buffer, each) for buffer, each in zip(momenta, shards, strict=True)]
    # The same rounding as for whole weights, on the host and on a device.
    if ok is None:
        ahead = foreach.multiply(gradients, 1 - mu)
        foreach.add_(ahead, momenta, alpha=mu)
    else:
        ahead = [torch.lerp(g, b, mu) for g, b in zip(gradients, momenta, strict=True)]
    return [_masked(direction, each) for direction, each in zip(ahead, shards, strict=True)]


def _masked(direction: Tensor, shard: Shard) -> Tensor:
    return torch.where(shard.units.mask(shard.reached), direction, 0.0)


def _drop_denormals_(shard: Shard) -> None:
    """Round the denormal numbers of resting units to zero: they are slow, and the smallest one never decays."""
    buffer = shard.momentum
    if buffer is None:
        return
    reached = shard.units.mask(shard.reached)
    if bool(reached.all()):
        return
    normal = torch.hardshrink(buffer, torch.finfo(buffer.dtype).tiny)
    buffer.copy_(torch.where(reached, buffer, normal))
