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
    _average_(momenta, gradients, mu, ok)
    for each, before in paused:
        assert each.momentum is not None
        assert each.active is not None
        each.momentum.copy_(torch.where(each.units.mask(each.active), each.momentum, before))
    if ok is None:
        for each in shards:
            _drop_denormals_(each)
    if not group["nesterov"]:
        return [_masked(buffer, each) for buffer, each in zip(momenta, shards, strict=True)]
    ahead = _ahead(momenta, gradients, mu, on_device=ok is not None)
    return [_masked(direction, each) for direction, each in zip(ahead, shards, strict=True)]


def early_directions(
    members: Sequence[Member],
    gradients: Sequence[Tensor | None],
    momenta: Sequence[Tensor | None],
    groups: Sequence[Group],
    *,
    on_device: bool,
) -> list[Tensor | None]:
    """The directions that `directions` will find, before it is known which units rest. No momentum changes.

    Args:
        members: the members, none of which needs its momentum at its owner.
        gradients: the shard of each gradient, in full precision; None without one.
        momenta: the shard of each momentum; None without one.
        groups: the parameter groups.
        on_device: whether the step reads no number, which rounds in another way.
    """
    found: list[Tensor | None] = []
    for member, gradient, momentum in zip(members, gradients, momenta, strict=True):
        if gradient is None or momentum is None or not gradient.numel():
            found.append(gradient)
            continue
        group, new = groups[member.group], [momentum.clone()]
        _average_(new, [gradient], group["momentum"], None)
        if group["nesterov"]:
            new = _ahead(new, [gradient], group["momentum"], on_device=on_device)
        found += new
    return found


def _average_(
    momenta: Sequence[Tensor], gradients: Sequence[Tensor], mu: float, ok: Tensor | None
) -> None:
    """`B ← μ B + (1 − μ) G`. If the step is cancelled, `μ` counts as 1, and the gradients are zero."""
    factor = torch.full((), mu, dtype=momenta[0].dtype, device=momenta[0].device)
    foreach.multiply_(momenta, factor if ok is None else torch.where(ok, factor, 1.0))
    foreach.add_(momenta, gradients, alpha=1 - mu)


def _ahead(
    momenta: Sequence[Tensor], gradients: Sequence[Tensor], mu: float, *, on_device: bool
) -> list[Tensor]:
    """`μ B + (1 − μ) G`, with the same rounding as for whole weights, on the host and on a device."""
    if on_device:
        return [torch.lerp(g, b, mu) for g, b in zip(gradients, momenta, strict=True)]
    ahead = foreach.multiply(gradients, 1 - mu)
    foreach.add_(ahead, momenta, alpha=mu)
    return ahead


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
