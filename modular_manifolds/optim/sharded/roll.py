"""The roll: all weights of an optimiser in the order of the flags, and the agreement of all processes over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.nn.boxes import Box
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.optim.fallback import fallback_weights_in
from modular_manifolds.optim.groups import weights_in
from modular_manifolds.optim.sharded.agreement import ShardedAgreement
from modular_manifolds.optim.sharded.crew import Crew
from modular_manifolds.optim.sharded.gradients import Entry
from modular_manifolds.optim.sharded.members import LOCAL, Member
from modular_manifolds.optim.sharded.units import Units
from modular_manifolds.optim.weight import Weight, full_dtype

Group = Mapping[str, Any]


class Roll:
    """The entries of the flags. Whole parameters are entries too, so that all processes stop at the same step.

    Args:
        groups: the parameter groups.
        geometries: the geometry of every weight, by name.
        members: the sharded parameters, by group and place.
        everyone: all processes.
        overlaps: whether messages may leave before the step.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        geometries: Mapping[str, Geometry],
        members: Mapping[tuple[int, int], Member],
        everyone: Crew,
        *,
        overlaps: bool = False,
    ) -> None:
        by_place: dict[tuple[int, int], list[Weight]] = {}
        for each in weights_in(groups, geometries):
            by_place.setdefault((each.group, each.place), []).append(each)
        self.entries = [_entry(weights, members.get(place)) for place, weights in by_place.items()]
        self.entries += [
            Entry(each.name, each.parameter, each.group, each.place, (), None)
            for each in fallback_weights_in(groups)
        ]
        self.by_name = {each.name: each for each in self.entries}
        self.names = [name for each in self.entries for name in each.names]
        self.starts: dict[str, int] = {}
        start = 0
        for each in self.entries:
            self.starts[each.name] = start
            start += sum(each.counts)
        dtypes = {full_dtype(each.parameter) for each in self.entries}
        self.dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        self.device = self.entries[0].parameter.device
        self.agreement = ShardedAgreement(
            everyone.group,
            self.names,
            [count for each in self.entries for count in each.counts],
            repr([_description(each, members, geometries) for each in self.entries]),
            self.dtype,
            self.device,
            overlaps=overlaps,
        )

    def stepped(self, groups: Sequence[Group]) -> tuple[bool, ...]:
        """Whether this process steps each weight: it has a gradient, and a share above 0."""
        found: list[bool] = []
        for each in self.entries:
            has_gradient = each.parameter.grad is not None
            group = groups[each.group]
            shares = [weight.share_in(group) for weight in each.weights] or [1.0]
            found += [has_gradient and share > 0 for share in shares]
        return tuple(found)

    def units_of(self, entry: Entry, numbers: Tensor) -> Tensor:
        """The numbers of one entry among those of all units."""
        return numbers.narrow(0, self.starts[entry.name], sum(entry.counts))


def _entry(weights: Sequence[Weight], member: Member | None) -> Entry:
    first = weights[0]
    parameter = first.parameter
    units = None
    if len(weights) > 1 or (member is not None and member.way is not LOCAL):
        box: Box = tuple((0, size) for size in parameter.shape)
        box = box if member is None else member.layout.own
        units = Units(weights, box, parameter.device)
    return Entry(first.path, parameter, first.group, first.place, tuple(weights), units)


def _description(
    entry: Entry, members: Mapping[tuple[int, int], Member], geometries: Mapping[str, Geometry]
) -> Any:
    """Whatever has to be the same on every process. Global ranks are not: processes may hold other slices of a mesh."""
    member = members.get((entry.group, entry.place))
    parameter: Any = entry.parameter
    return (
        [(each.name, each.shape, geometries[each.name]) for each in entry.weights] or entry.name,
        tuple(parameter.shape),
        full_dtype(parameter),
        None
        if member is None
        else (str(parameter.placements), member.crew.shape, member.way, member.owner),
    )
