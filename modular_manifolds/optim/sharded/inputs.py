"""The solver's input in the shards of parameters that no process steps alone: gradients, or what follows from momenta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from modular_manifolds.optim.sharded.decision import Decision
from modular_manifolds.optim.sharded.members import Member
from modular_manifolds.optim.sharded.momentum import Shard, directions, early_directions
from modular_manifolds.optim.sharded.roll import Roll
from modular_manifolds.optim.sharded.stand_ins import travels_with_momentum
from modular_manifolds.optim.weight import full_dtype

Group = Mapping[str, Any]


def solver_inputs(
    roll: Roll,
    members: Sequence[Member],
    groups: Sequence[Group],
    gradients: Mapping[str, Tensor | None],
    shards: Sequence[Mapping[str, Tensor]],
    decision: Decision,
) -> list[Tensor | None]:
    """Update the momenta; return the solver's input in the shard of each member: the gradient, if an owner keeps the momentum.

    Args:
        roll: all weights.
        members: the members.
        groups: the parameter groups.
        gradients: the shard of each gradient, by name.
        shards: the shards of each member's state.
        decision: of the step.
    """
    found: dict[str, Tensor | None] = {}
    advanced: list[Shard] = []
    for member, own in zip(members, shards, strict=True):
        gradient = gradients[member.name]
        if gradient is not None:
            gradient = gradient.to(full_dtype(member.parameter))
        group = groups[member.group]
        shares = [each.share_in(group) for each in member.weights]
        if travels_with_momentum(group) or not any(shares):
            found[member.name] = gradient
            continue
        entry = roll.by_name[member.name]
        assert entry.units is not None
        reached = roll.units_of(entry, decision.reached)
        active = None if all(shares) else entry.units.spread(shares)
        advanced.append(Shard(member, gradient, own.get("momentum"), entry.units, reached, active))
    for shard, each in zip(advanced, directions(advanced, groups, decision.ok), strict=True):
        found[shard.member.name] = each
    return [found[each.name] for each in members]


def early_inputs(
    members: Sequence[Member],
    groups: Sequence[Group],
    gradients: Mapping[str, Tensor | None],
    shards: Sequence[Mapping[str, Tensor]],
    *,
    on_device: bool,
) -> list[Tensor | None]:
    """The solver's input before the decision of the step: nothing changes, and units that will rest are not zero yet.

    Args:
        members: the members.
        groups: the parameter groups.
        gradients: the shard of each gradient, by name.
        shards: the shards of each member's state.
        on_device: whether the step reads no number.
    """
    found: dict[str, Tensor | None] = {}
    advanced: list[tuple[Member, Tensor | None, Tensor | None]] = []
    for member, own in zip(members, shards, strict=True):
        gradient = gradients[member.name]
        if gradient is not None:
            gradient = gradient.to(full_dtype(member.parameter))
        found[member.name] = gradient
        if not travels_with_momentum(groups[member.group]):
            advanced.append((member, gradient, own.get("momentum")))
    if advanced:
        chosen, given, momenta = zip(*advanced, strict=True)
        early = early_directions(chosen, given, momenta, groups, on_device=on_device)
        found.update((each.name, new) for each, new in zip(chosen, early, strict=True))
    return [found[each.name] for each in members]
