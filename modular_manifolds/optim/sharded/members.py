"""Members: the parameters of an optimiser that are DTensors, and the way that each is stepped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from torch import Tensor

from modular_manifolds.nn.boxes import Box, size_of
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.piece import Piece
from modular_manifolds.nn.sharded import is_sharded
from modular_manifolds.optim.damping import unit_dims
from modular_manifolds.optim.fallback import fallback_weights_in
from modular_manifolds.optim.groups import weights_in
from modular_manifolds.optim.placement import cost_of
from modular_manifolds.optim.sharded.comparison import Comparison
from modular_manifolds.optim.sharded.crew import Crew, Crews
from modular_manifolds.optim.sharded.layout import Layout, layout_of
from modular_manifolds.optim.weight import Weight
from modular_manifolds.solvers.base import Solver

ROWS: Final = "rows"
"""All processes step it together, each its rows, and nobody gathers it."""

LOCAL: Final = "local"
"""Each process steps its own shard."""

OWNER: Final = "owner"
"""One process gathers the parameter, steps it, and sends it back."""


@dataclass(frozen=True, eq=False)
class Member:
    """A parameter that is a DTensor; it is `param_groups[group]["params"][place]`.

    Args:
        name: its path.
        parameter: the DTensor.
        group: the number of its group.
        place: its place in the group.
        weights: its logical matrices; none if AdamW steps it.
        layout: the boxes that processes hold.
        way: `LOCAL`, `OWNER` or `ROWS`.
        cost: multiplications of its step.
        owner: the rank of its owner in the crew; None without an owner.
        local_pieces: the pieces of this process's shard, if it is stepped locally and has pieces.
        comparison: the cost of an owner and of rows; None if it cannot be stepped by rows.
    """

    name: str
    parameter: Any
    group: int
    place: int
    weights: tuple[Weight, ...]
    layout: Layout
    way: str
    cost: float
    owner: int | None = None
    local_pieces: tuple[Piece, ...] = ()
    comparison: Comparison | None = None

    @property
    def crew(self) -> Crew:
        """The processes of its mesh."""
        return self.layout.crew

    def cost_of(self, box: Box) -> float:
        """The cost of the matrices in a box, if each lies in one box."""
        return self.cost * size_of(box) / max(math.prod(self.layout.shape), 1)

    @property
    def is_owned(self) -> bool:
        """Whether this process is the owner."""
        return self.owner == self.crew.rank

    @property
    def is_empty(self) -> bool:
        """Whether this process holds no entry."""
        return size_of(self.layout.own) == 0


def members_in(
    groups: Sequence[Mapping[str, Any]],
    geometries: Mapping[str, Geometry],
    crews: Crews,
    *,
    solver: str | Solver,
) -> list[Member]:
    """Every DTensor of the groups, with its way and its owner. All processes of a mesh find the same.

    Raises:
        ArgumentError: a parameter has placements that are not known.
    """
    by_parameter: dict[Tensor, list[Weight]] = {}
    for weight in weights_in(groups, geometries):
        by_parameter.setdefault(weight.parameter, []).append(weight)
    members: list[Member] = []
    for weights in by_parameter.values():
        first = weights[0]
        if is_sharded(first.parameter):
            layout = layout_of(
                first.parameter, crews.of(first.parameter.device_mesh), name=first.path
            )
            members.append(_member(weights, layout, solver))
    for each in fallback_weights_in(groups):
        if is_sharded(each.parameter):
            layout = layout_of(each.parameter, crews.of(each.parameter.device_mesh), name=each.name)
            members.append(
                Member(each.name, each.parameter, each.group, each.place, (), layout, LOCAL, 0.0)
            )
    return with_owners(members)


def _member(weights: Sequence[Weight], layout: Layout, solver: str | Solver) -> Member:
    first = weights[0]
    cost = sum(cost_of(each, solver) for each in weights)
    is_whole = not layout.sharded_dims
    pieces = local_pieces(weights, layout)
    # One process is enough for a costly matrix that all hold.
    way = OWNER if pieces is None or (is_whole and cost and layout.crew.processes > 1) else LOCAL
    return Member(
        first.path,
        first.parameter,
        first.group,
        first.place,
        tuple(weights),
        layout,
        way,
        cost,
        local_pieces=() if way is OWNER or pieces is None else pieces,
    )


def local_pieces(weights: Sequence[Weight], layout: Layout) -> tuple[Piece, ...] | None:
    """The pieces of this process's shard, empty for a whole parameter; None if a unit lies in several shards."""
    found: list[Piece] = []
    for weight in weights:
        if weight.piece is None:
            count = len(weight.shape)
            dims = {d % count for d in unit_dims(count, weight.geometry.coupled_dims)}
            if dims & layout.sharded_dims:
                return None
            continue
        piece = _local_piece(weight.piece, layout)
        if piece is None:
            return None
        found.append(piece)
    return tuple(found)


def _local_piece(piece: Piece, layout: Layout) -> Piece | None:
    """The piece of a shard that holds whole matrices of a stack, such as some of the experts."""
    if not layout.sharded_dims:
        return piece
    stacked = layout.sharded_dims == {0} and 0 in piece.batch
    if not stacked or any(d == 0 for d, _, _ in piece.narrowed):
        return None
    step, rest = divmod(layout.shape[0], piece.unflattened[0])
    if rest or any(place % step for box in layout.boxes for place in box[0]):
        return None
    start, stop = layout.own[0]
    return replace(piece, unflattened=((stop - start) // step, *piece.unflattened[1:]))


def with_owners(members: Sequence[Member]) -> list[Member]:
    """Deal the owners out, in each mesh by itself: the costliest first, each to the rank with the least load.

    The matrices in a shard count as load. Every process of a mesh knows all its members, so no two of them find
    different owners.
    """
    dealt = list(members)
    loads: dict[tuple[int, ...], list[float]] = {}
    for member in members:
        if member.way is LOCAL and member.cost:
            own = loads.setdefault(member.crew.ranks, [0.0] * member.crew.processes)
            for rank, box in enumerate(member.layout.boxes):
                own[rank] += member.cost_of(box)
    order = sorted(range(len(members)), key=lambda i: (-_load(members[i]), i))
    for i in order:
        member = members[i]
        if member.way is not OWNER:
            continue
        own = loads.setdefault(member.crew.ranks, [0.0] * member.crew.processes)
        rank = min(range(len(own)), key=lambda rank: (own[rank], rank))
        own[rank] += _load(member)
        dealt[i] = replace(member, owner=rank)
    return dealt


def _load(member: Member) -> float:
    """The cost of a member; for a cheap one, its entries."""
    return max(member.cost, float(member.parameter.numel()))
