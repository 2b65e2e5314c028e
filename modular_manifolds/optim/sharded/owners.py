"""Owners: the fields that travel to the owner of each parameter and back, and the whole stand-ins that they fill there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.optim.bucket import bucket_key
from modular_manifolds.optim.sharded.decision import Decision
from modular_manifolds.optim.sharded.members import Member
from modular_manifolds.optim.sharded.messages import (
    Message,
    messages_in_order,
    one_message,
    signature_of,
)
from modular_manifolds.optim.sharded.overlap import Overlap
from modular_manifolds.optim.sharded.roll import Roll
from modular_manifolds.optim.sharded.stand_ins import WholeStandIn, travels_with_momentum
from modular_manifolds.optim.sharded.state import layouts_of, shards_of
from modular_manifolds.optim.sharded.transport import Field, Transport, transports_for
from modular_manifolds.optim.sharded.units import Units
from modular_manifolds.optim.weight import full_dtype

Group = Mapping[str, Any]
Shards = Mapping[str, Tensor]


class Owners:
    """The members that owners step, and the transports of their fields.

    The gradient travels to the owner; the point, the duals and, if the settings need them there, momentum and averages
    travel both ways. Without such settings the gradient is replaced by the direction that follows from the momentum.

    Args:
        members: all members with an owner, in an order that is the same on every process.
        overlap: sends fields to owners in several messages while the backward pass goes on; None to send all at once.
    """

    def __init__(self, members: Sequence[Member], overlap: Overlap | None = None) -> None:
        self.members = tuple(members)
        self._overlap = overlap
        self.stand_ins = {each.name: WholeStandIn(each) for each in members if each.is_owned}
        self.messages: list[Message] = []
        self.to_holders: list[Transport] = []
        self._shapes: dict[str, dict[str, tuple[tuple[int, ...], torch.dtype]]] = {}
        self._kept: dict[str, list[str]] = {}
        self._known: list[Any] = []
        self._units: dict[str, Units] = {}

    @property
    def to_owners(self) -> list[Transport]:
        """The transports of all messages."""
        return [each for message in self.messages for each in message.transports]

    def prepare(self, groups: Sequence[Group], state: Mapping[Tensor, Mapping[str, Any]]) -> None:
        """Lay the transports out, if settings or state entries have changed."""
        signature = signature_of(self.members, groups, state)
        if signature == self._known or not self.members:
            return
        self._known = signature
        sent: dict[str, list[tuple[Field, torch.dtype]]] = {}
        returned: list[tuple[Field, torch.dtype]] = []
        for member in self.members:
            entries, owner = state[member.parameter], member.owner
            assert owner is not None
            full = full_dtype(member.parameter)
            kept = _travelling(entries, groups[member.group])
            layouts = layouts_of(entries, member)
            both = [
                (Field((member.name, "point"), member.layout, owner), full),
                *(
                    (Field((member.name, key), layouts[key], owner), entries[key].dtype)
                    for key in kept
                ),
            ]
            sent[member.name] = [
                (Field((member.name, "gradient"), member.layout, owner), full),
                *both,
            ]
            returned += both
            self._kept[member.name] = kept
            self._shapes[member.name] = {
                key: (tuple(entries[key].shape), entries[key].dtype) for key in kept
            }
        lay_out = one_message if self._overlap is None else messages_in_order
        self.messages = lay_out(self.members, sent, dict(self._kept), signature)
        self.to_holders = transports_for(returned, self.members[0].parameter.device)
        if self._overlap is not None:
            self._overlap.follow(self.messages, groups, state)

    def alike_elsewhere(self, stepped: Sequence[str]) -> dict[str, int]:
        """For each weight that this process owns, the number of stepped weights alike that others own.

        Plans depend on the number of weights alike, so they are those of one process.
        """
        names = set(stepped)
        others = Counter(
            (member.crew.ranks, bucket_key(each))
            for member in self.members
            for each in member.weights
            if not member.is_owned and each.name in names
        )
        return {
            each.name: others[member.crew.ranks, bucket_key(each)]
            for member in self.members
            for each in member.weights
            if member.is_owned
        }

    def allocate(self) -> None:
        """Take memory for the whole tensors. A stand-in has a gradient if this process's shard has one."""
        for name, each in self.stand_ins.items():
            each.allocate(self._shapes[name])

    def release(self) -> None:
        """Give the memory of the whole tensors and of messages back."""
        if self._overlap is not None:
            self._overlap.end_round()
        for each in self.stand_ins.values():
            each.release()

    def states(self) -> dict[Tensor, dict[str, Any]]:
        """The state of the whole stand-ins."""
        return {each.tensor: each.state for each in self.stand_ins.values()}

    def shards(self, member: Member, state: Mapping[Tensor, Mapping[str, Any]]) -> Shards:
        """The shard of a member, under `""`, and those of its state."""
        return {**shards_of(state[member.parameter]), "": member.parameter.to_local()}

    def complete(
        self,
        gradients: Mapping[str, Tensor | None],
        groups: Sequence[Group],
        state: Mapping[Tensor, Mapping[str, Any]],
        roll: Roll,
    ) -> tuple[Tensor, Tensor] | None:
        """With overlap, send the messages that have not left, and return its two numbers for the agreement."""
        if self._overlap is None:
            return None
        self._overlap.follow(self.messages, groups, state)
        return self._overlap.complete(gradients, roll.dtype, roll.device)

    def gather(
        self,
        gradients: Sequence[Tensor | None],
        shards: Sequence[Shards],
        groups: Sequence[Group],
        roll: Roll,
        decision: Decision,
    ) -> None:
        """Bring gradients or directions, points and state to the owners. Messages that have left are only received.

        Args:
            gradients: the gradient or direction of each member's shard; None counts as zero.
            shards: the result of `shards` for each member.
            groups: the parameter groups.
            roll: all weights.
            decision: of the step.
        """
        wholes = self._wholes()
        if self._overlap is not None:
            self._overlap.receive(wholes)
            self._rest_(groups, roll, decision)
            return
        for message in self.messages:
            values = message.values(gradients, shards)
            for each in message.transports:
                each.receive(each.send(each.pack(values)), wholes)

    def _rest_(self, groups: Sequence[Group], roll: Roll, decision: Decision) -> None:
        """Write zero into received directions where units rest. Messages that left early could not know which."""
        for name, each in self.stand_ins.items():
            if not travels_with_momentum(groups[each.member.group]):
                reached = roll.units_of(roll.by_name[name], decision.reached)
                mask = self._units_of(each.member).mask(reached)
                each.gradient.masked_fill_(torch.logical_not(mask), 0.0)

    def _units_of(self, member: Member) -> Units:
        """The units of a whole parameter."""
        if member.name not in self._units:
            box = tuple((0, size) for size in member.layout.shape)
            self._units[member.name] = Units(member.weights, box, member.parameter.device)
        return self._units[member.name]

    def scatter(self, shards: Sequence[Shards]) -> None:
        """Bring new points and state back into the shards."""
        values: dict[tuple[str, str], Tensor] = {}
        for member, own in zip(self.members, shards, strict=True):
            values[member.name, "point"] = own.get("master", own[""])
            values.update({(member.name, key): own[key] for key in self._kept[member.name]})
        wholes = self._wholes()
        for each in self.to_holders:
            each.to_holders(wholes, values)
        for own in shards:
            if "master" in own:
                own[""].copy_(own["master"])

    def _wholes(self) -> dict[tuple[str, str], Tensor]:
        """The whole tensor of each owned field."""
        wholes: dict[tuple[str, str], Tensor] = {}
        for name, each in self.stand_ins.items():
            wholes[name, "point"] = each.tensor
            wholes[name, "gradient"] = each.gradient
            wholes.update({(name, key): value for key, value in each.state.items()})
        return wholes


def _travelling(entries: Mapping[str, Any], group: Group) -> list[str]:
    """The state entries that travel: duals, and all but the master copy if the owner needs the momentum."""
    everything = travels_with_momentum(group)
    return [key for key in entries if key.startswith("dual") or (everything and key != "master")]
