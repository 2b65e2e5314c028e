"""Placement of sharded weights: the way of each, its owner, and the bytes that a step sends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modular_manifolds.optim.sharded.members import LOCAL, OWNER, Member
from modular_manifolds.optim.sharded.transport import Transport


@dataclass(frozen=True)
class Way:
    """One parameter in the placement.

    Args:
        name: its path.
        way: `"local"` or `"owner"`.
        owner: the global rank of its owner; None without an owner.
        cost: multiplications of its step.
        placements: its placements, as torch prints them.
    """

    name: str
    way: str
    owner: int | None
    cost: float
    placements: str


@dataclass(frozen=True)
class ShardedPlacement:
    """The way of each sharded parameter; `print` it to read it with its cost.

    Args:
        processes: the number of processes that step together.
        ways: one for each sharded parameter.
        loads: the multiplications of a step, by global rank of the processes that share this process's meshes.
        flag_bytes: the bytes of the agreement.
        bytes_to_owners: the bytes that this process sends to other owners in a step.
        bytes_to_holders: the bytes that this process sends back to other holders in a step.
    """

    processes: int
    ways: tuple[Way, ...]
    loads: dict[int, float]
    flag_bytes: int
    bytes_to_owners: int
    bytes_to_holders: int

    @property
    def owners(self) -> dict[str, int]:
        """The global rank of each owner, by the name of the parameter."""
        return {each.name: each.owner for each in self.ways if each.owner is not None}

    @property
    def imbalance(self) -> float:
        """The largest load over the mean; 1 if nothing is to be solved."""
        loads = list(self.loads.values())
        return max(loads) * len(loads) / sum(loads) if any(loads) else 1.0

    def __str__(self) -> str:
        local = sum(1 for each in self.ways if each.way is LOCAL)
        owned = [each for each in self.ways if each.way is OWNER]
        total = sum(each.cost for each in owned)
        first = (
            f"sharded over {self.processes} processes: {local} parameters are stepped in their shards, {len(owned)} by "
            "owners"
        )
        if not owned:
            return f"{first}; a step sends {self.flag_bytes} bytes of flags"
        lines = [
            f"{first}; at most {max(self.loads.values()):.2g} of {total:.2g} multiplications of the owners a step and "
            f"process, {self.imbalance:.2f} times the mean; this process sends {self.bytes_to_owners / 1e6:.3g} MB to "
            f"owners, {self.bytes_to_holders / 1e6:.3g} MB back, and {self.flag_bytes} bytes of flags a step"
        ]
        width = max(len(each.name) for each in self.ways)
        for each in self.ways:
            owner = "" if each.owner is None else f" {each.owner}, about {each.cost:.2g}"
            lines.append(f"{each.name:<{width}}  {each.placements}  {each.way}{owner}")
        return "\n".join(lines)


def placement_of(
    members: Sequence[Member],
    to_owners: Sequence[Transport],
    to_holders: Sequence[Transport],
    *,
    processes: int,
    flag_bytes: int,
) -> ShardedPlacement:
    """The placement of these members."""
    ways: list[Way] = []
    loads: dict[int, float] = {}
    for each in members:
        loads.update({rank: loads.get(rank, 0.0) for rank in each.crew.ranks})
        owner = None if each.owner is None else each.crew.ranks[each.owner]
        if owner is not None:
            loads[owner] += each.cost
        elif each.cost:
            for rank, box in zip(each.crew.ranks, each.layout.boxes, strict=True):
                loads[rank] += each.cost_of(box)
        placements = ", ".join(map(str, each.parameter.placements))
        ways.append(Way(each.name, each.way, owner, each.cost, f"({placements})"))
    return ShardedPlacement(
        processes,
        tuple(ways),
        loads,
        flag_bytes,
        sum(each.numbers_to_owners * each.bytes_per_number for each in to_owners),
        sum(each.numbers_to_holders * each.bytes_per_number for each in to_holders),
    )
