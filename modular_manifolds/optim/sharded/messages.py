"""Messages: the fields that travel to owners together, and their order, which follows from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from modular_manifolds.nn.boxes import size_of
from modular_manifolds.optim.sharded.crew import Crew
from modular_manifolds.optim.sharded.members import Member
from modular_manifolds.optim.sharded.stand_ins import travels_with_momentum
from modular_manifolds.optim.sharded.transport import Field, Transport, transports_for
from modular_manifolds.optim.state import full_precision_weight

Group = Mapping[str, Any]
States = Mapping[Tensor, Mapping[str, Any]]
Fields = Sequence[tuple[Field, torch.dtype]]

MESSAGE_BYTES: Final = 25 * 2**20
"""A message takes no further parameter once a process sends so many bytes of it on average, as in
DistributedDataParallel."""


@dataclass(frozen=True, eq=False)
class Message:
    """Parameters whose fields travel to their owners at the same time.

    Args:
        members: the parameters.
        transports: the transports of their fields.
        kept: the state entries of each parameter that travel.
        signature: the result of `signature_of` when the message was laid out.
    """

    members: tuple[Member, ...]
    transports: tuple[Transport, ...]
    kept: Mapping[str, Sequence[str]]
    signature: list[Any]

    @property
    def crew(self) -> Crew:
        """The processes of the first member, and of all if there are several messages."""
        return self.members[0].crew

    def values(
        self, gradients: Sequence[Tensor | None], shards: Sequence[Mapping[str, Tensor]]
    ) -> dict[tuple[str, str], Tensor]:
        """The shard of every field.

        Args:
            gradients: the gradient or direction of each member's shard; None counts as zero.
            shards: the state of each member's shard, and under `""` the shard.
        """
        values: dict[tuple[str, str], Tensor] = {}
        for member, gradient, own in zip(self.members, gradients, shards, strict=True):
            point = full_precision_weight(own[""], own.get("master"))
            values[member.name, "point"] = point
            values[member.name, "gradient"] = (
                torch.zeros_like(point) if gradient is None else gradient
            )
            values.update({(member.name, key): own[key] for key in self.kept[member.name]})
        return values


def signature_of(
    members: Sequence[Member], groups: Sequence[Group], state: States
) -> list[tuple[Any, ...]]:
    """The settings and state entries that decide which fields travel."""
    return [
        (travels_with_momentum(groups[each.group]), *state.get(each.parameter, ()))
        for each in members
    ]


def one_message(
    members: Sequence[Member],
    fields: Mapping[str, Fields],
    kept: Mapping[str, Sequence[str]],
    signature: Sequence[Any],
) -> list[Message]:
    """All members in one message.

    Args:
        members: the members, at least one.
        fields: the fields of each member and their dtypes.
        kept: the state entries of each member that travel.
        signature: the result of `signature_of` for these members.
    """
    return [_message(range(len(members)), members, fields, kept, signature)]


def messages_in_order(
    members: Sequence[Member],
    fields: Mapping[str, Fields],
    kept: Mapping[str, Sequence[str]],
    signature: Sequence[Any],
) -> list[Message]:
    """The messages of each crew, from the last parameter to the first, because a backward pass ends at the first layer.

    A message has members of one crew, and all processes of the crew know all its members, so they find the same messages
    in the same order.
    """
    runs: list[list[int]] = []
    last_of: dict[tuple[int, ...], tuple[list[int], float]] = {}
    for i in reversed(range(len(members))):
        crew = members[i].crew
        run, size = last_of.get(crew.ranks, ([], 0.0))
        if not run or size >= MESSAGE_BYTES:
            run, size = [], 0.0
            runs.append(run)
        run.append(i)
        last_of[crew.ranks] = run, size + _bytes_sent(fields[members[i].name]) / crew.processes
    return [_message(run, members, fields, kept, signature) for run in runs]


def _message(
    run: Sequence[int],
    members: Sequence[Member],
    fields: Mapping[str, Fields],
    kept: Mapping[str, Sequence[str]],
    signature: Sequence[Any],
) -> Message:
    chosen = tuple(members[i] for i in run)
    device = chosen[0].parameter.device
    transports = transports_for([each for m in chosen for each in fields[m.name]], device)
    return Message(chosen, tuple(transports), kept, [signature[i] for i in run])


def _bytes_sent(fields: Fields) -> int:
    """The bytes that all processes together contribute to these fields."""
    return sum(
        size_of(field.layout.boxes[rank]) * dtype.itemsize
        for field, dtype in fields
        for rank in field.layout.sources(field.owner)
    )
