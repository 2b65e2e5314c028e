"""Layout: the box of a tensor that each process of a mesh holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modular_manifolds.nn.boxes import Box, box_of, check_box
from modular_manifolds.optim.sharded.crew import Crew


@dataclass(frozen=True)
class Layout:
    """The boxes of a tensor over the processes of its mesh.

    Args:
        crew: the processes of the mesh.
        shape: the shape of the whole tensor.
        boxes: the box of each process, by its rank in the crew. A process may hold an empty box.
        replicated: the mesh dimensions along which processes hold the same box.
    """

    crew: Crew
    shape: tuple[int, ...]
    boxes: tuple[Box, ...]
    replicated: tuple[int, ...]

    @property
    def own(self) -> Box:
        """The box of this process."""
        return self.boxes[self.crew.rank]

    @property
    def sharded_dims(self) -> frozenset[int]:
        """The tensor dimensions that are split over processes."""
        return frozenset(
            d for d, size in enumerate(self.shape) if any(box[d] != (0, size) for box in self.boxes)
        )

    def sources(self, owner: int) -> list[int]:
        """The processes whose boxes tile the tensor, once each, and that are nearest to `owner`.

        Along a replicated mesh dimension these are the processes with the owner's coordinate.
        """
        home = self.crew.coordinates[owner]
        return [
            rank
            for rank, coordinate in enumerate(self.crew.coordinates)
            if all(coordinate[d] == home[d] for d in self.replicated)
        ]


def layout_of(tensor: Any, crew: Crew, *, name: str) -> Layout:
    """The layout of a DTensor.

    Raises:
        ArgumentError: a placement is unknown or partial, or torch has placed the tensor in another way.
    """
    layout = layout_for(tuple(tensor.shape), crew, tensor.placements, name=name)
    check_box(tensor.to_local(), layout.own, tensor.placements, name=name)
    return layout


def layout_for(
    shape: tuple[int, ...], crew: Crew, placements: Sequence[Any], *, name: str
) -> Layout:
    """The layout of a tensor of this shape and these placements, one for each mesh dimension.

    Raises:
        ArgumentError: a placement is unknown or partial.
    """
    boxes = tuple(
        box_of(shape, placements, crew.shape, coordinate, name=name)
        for coordinate in crew.coordinates
    )
    replicated = (axis for axis, each in enumerate(placements) if each.is_replicate())
    return Layout(crew, shape, boxes, tuple(replicated))
