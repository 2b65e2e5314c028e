"""Placement of sharded weights: the way of each, its owner, and the bytes that a step sends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modular_manifolds.optim.sharded.comparison import Comparison
from modular_manifolds.optim.sharded.members import LOCAL, OWNER, ROWS, Member
from modular_manifolds.optim.sharded.transport import Transport


@dataclass(frozen=True)
class Way:
    """One parameter in the placement.

    Args:
        name: its path.
        way: `"local"`, `"owner"` or `"rows"`.
        owner: the global rank of its owner; None without an owner.
        cost: multiplications of its step.
        placements: its placements, as torch prints them.
        comparison: the cost by rows and by an owner; None if it cannot go by rows.
    """

    name: str
    way: str
    owner: int | None
    cost: float
    placements: str
    comparison: Comparison | None = None


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
        row_bytes: the bytes that this process contributes to the sums of a step by rows. A ring all-reduce sends them
            `2 (p − 1)/p` times.
        overlap: the number of messages to owners, and of those that had left before the last step, None before the first
            step; None if the step sends all at once.
    """

    processes: int
    ways: tuple[Way, ...]
    loads: dict[int, float]
    flag_bytes: int
    bytes_to_owners: int
    bytes_to_holders: int
    row_bytes: int = 0
    overlap: tuple[int, int | None] | None = None

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
        local = sum(1 for each in self.ways if each.way == LOCAL)
        owned = [each for each in self.ways if each.way == OWNER]
        by_rows = [each for each in self.ways if each.way == ROWS]
        total = sum(each.cost for each in owned)
        first = (
            f"sharded over {self.processes} processes: {local} parameters are stepped in their shards, {len(owned)} by "
            "owners"
        )
        if by_rows:
            first += f", {len(by_rows)} by rows after sums of {self.row_bytes / 1e6:.3g} MB"
        if not owned and not by_rows:
            return f"{first}; a step sends {self.flag_bytes} bytes of flags"
        # Rows and shards add to the loads, so only owners alone make up a total.
        of_total = "" if by_rows else f" of {total:.2g} multiplications of the owners"
        lines = [
            f"{first}; at most {max(self.loads.values()):.2g}{of_total or ' multiplications'} a step and process, "
            f"{self.imbalance:.2f} times the mean; this process sends {self.bytes_to_owners / 1e6:.3g} MB to owners, "
            f"{self.bytes_to_holders / 1e6:.3g} MB back, and {self.flag_bytes} bytes of flags a step"
        ]
        if self.overlap is not None:
            count, early = self.overlap
            seen = (
                "no step was taken yet" if early is None else f"{early} left before the last step"
            )
            lines[0] += f"; {count} messages to owners may leave in the backward pass, {seen}"
        width = max(len(each.name) for each in self.ways)
        for each in self.ways:
            owner = "" if each.owner is None else f" {each.owner}, about {each.cost:.2g}"
            costs = "" if each.comparison is None else f"; {each.comparison}"
            lines.append(f"{each.name:<{width}}  {each.placements}  {each.way}{owner}{costs}")
        return "\n".join(lines)


def placement_of(
    members: Sequence[Member],
    to_owners: Sequence[Transport],
    to_holders: Sequence[Transport],
    *,
    processes: int,
    flag_bytes: int,
    row_bytes: int = 0,
    overlap: tuple[int, int | None] | None = None,
) -> ShardedPlacement:
    """The placement of these members."""
    ways: list[Way] = []
    loads: dict[int, float] = {}
    for each in members:
        loads.update({rank: loads.get(rank, 0.0) for rank in each.crew.ranks})
        owner = None if each.owner is None else each.crew.ranks[each.owner]
        if owner is not None:
            loads[owner] += each.cost
        elif each.way == ROWS and each.comparison is not None:
            for rank in each.crew.ranks:
                loads[rank] += each.comparison.rows.multiplications
        elif each.cost:
            for rank, box in zip(each.crew.ranks, each.layout.boxes, strict=True):
                loads[rank] += each.cost_of(box)
        placements = ", ".join(map(str, each.parameter.placements))
        ways.append(Way(each.name, each.way, owner, each.cost, f"({placements})", each.comparison))
    return ShardedPlacement(
        processes,
        tuple(ways),
        loads,
        flag_bytes,
        sum(each.numbers_to_owners * each.bytes_per_number for each in to_owners),
        sum(each.numbers_to_holders * each.bytes_per_number for each in to_holders),
        row_bytes,
        overlap,
    )
