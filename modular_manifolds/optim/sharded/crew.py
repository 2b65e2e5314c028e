"""Crew: the processes of one device mesh, in the order of their process group."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from modular_manifolds.errors import ArgumentError


@dataclass(frozen=True)
class Crew:
    """The processes of one mesh.

    Args:
        shape: the sizes of the mesh.
        coordinates: the place of each process in the mesh, by its rank in the group.
        ranks: the global ranks.
        rank: the rank of this process in the group.
        group: the process group.
    """

    shape: tuple[int, ...]
    coordinates: tuple[tuple[int, ...], ...]
    ranks: tuple[int, ...]
    rank: int
    group: Any = field(repr=False, compare=False)

    @property
    def processes(self) -> int:
        """The number of processes."""
        return len(self.ranks)


class Crews:
    """The crews of all meshes of an optimiser. Meshes of the same processes share one process group."""

    def __init__(self) -> None:
        self._crews: dict[Any, Crew] = {}
        self._groups: dict[tuple[int, ...], Any] = {}
        self._second_groups: dict[tuple[int, ...], Any] = {}

    def of(self, mesh: Any) -> Crew:
        """The crew of a mesh."""
        if mesh not in self._crews:
            self._crews[mesh] = self._new(mesh)
        return self._crews[mesh]

    def _new(self, mesh: Any) -> Crew:
        ranks = mesh.mesh
        shape = tuple(ranks.shape)
        coordinates = torch.ones(shape).nonzero().tolist()
        places = dict(zip(ranks.flatten().tolist(), map(tuple, coordinates), strict=True))
        group = self._group(mesh, tuple(sorted(places)))
        members = tuple(dist.get_process_group_ranks(group))
        rank = dist.get_rank(group)
        return Crew(shape, tuple(places[each] for each in members), members, rank, group)

    def _group(self, mesh: Any, ranks: tuple[int, ...]) -> Any:
        if ranks not in self._groups:
            if mesh.ndim == 1:
                self._groups[ranks] = mesh.get_group()
            elif ranks == tuple(range(dist.get_world_size())):
                self._groups[ranks] = dist.group.WORLD
            else:
                self._groups[ranks] = _new_group(ranks)
        return self._groups[ranks]

    def second_group(self, crew: Crew) -> Any:
        """Another process group of a crew, whose collectives may lie anywhere among those of the first. All call it once."""
        if crew.ranks not in self._second_groups:
            self._second_groups[crew.ranks] = _new_group(crew.ranks)
        return self._second_groups[crew.ranks]

    def everyone(self) -> Crew:
        """The crew that has all processes of the others.

        Raises:
            ArgumentError: there is none, and the meshes are not part of one.
        """
        mesh, largest = max(self._crews.items(), key=lambda each: each[1].processes)
        for candidate in (largest, self.of(_root_of(mesh))):
            known = set(candidate.ranks)
            if all(known.issuperset(each.ranks) for each in self._crews.values()):
                return candidate
        raise ArgumentError(
            "SteepestDescent(params)",
            "must be sharded over one mesh, or over parts of one",
            " and ".join(str(list(each.ranks)) for each in self._crews.values()),
            "Make one mesh with init_device_mesh, and shard over its dimensions, such as mesh['dp'].",
        )


def _new_group(ranks: tuple[int, ...]) -> Any:
    is_partial = len(ranks) < dist.get_world_size()
    return dist.new_group(list(ranks), use_local_synchronization=is_partial)


def _root_of(mesh: Any) -> Any:
    """The mesh that `mesh` is a part of. torch has no public name for it, and has moved it."""
    if hasattr(mesh, "_get_root_mesh"):
        return mesh._get_root_mesh()
    resources = getattr(sys.modules["torch.distributed.device_mesh"], "_mesh_resources", None)
    return mesh if resources is None else resources.get_root_mesh(mesh)
