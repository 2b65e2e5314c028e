"""The optimiser's description of one weight: a name, a parameter, a geometry, and its place in the parameter groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.piece import Piece
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.selection import find_solver

STORED_SHAPE_ENTRIES: Final = ("momentum", "master")
"""State entries in the shape of the stored parameter; all its pieces share them."""


@dataclass(frozen=True, eq=False)
class Weight:
    """A logical matrix, or a stack of them, with its geometry: a whole parameter or a piece of it.

    Args:
        name: the path in the network, with the piece's name in brackets.
        parameter: the stored tensor that holds the weight.
        geometry: its manifold and norm.
        group: the number of its parameter group.
        place: the place of the parameter in that group: it is `param_groups[group]["params"][place]`.
        index: its number among the weights of all groups.
        path: the parameter's name.
        piece: the piece of the parameter; None for the whole parameter.
        slot: the number of the piece among the parameter's pieces.
    """

    name: str
    parameter: Tensor
    geometry: Geometry
    group: int
    place: int
    index: int
    path: str = ""
    piece: Piece | None = None
    slot: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape, (n,) or (*batch, m, n)."""
        return tuple(self.parameter.shape) if self.piece is None else self.piece.shape

    @property
    def matrix_shape(self) -> tuple[int, ...]:
        """The shape for a solver: a vector is one column."""
        shape = self.shape
        return (*shape, 1) if len(shape) == 1 else shape

    def read(self, stored: Tensor) -> Tensor:
        """This weight's entries of a tensor of the parameter's shape, in the logical shape."""
        return stored if self.piece is None else self.piece.read(stored)

    def target(self) -> Tensor:
        """A view of the parameter's memory. It may have more dimensions than the logical shape."""
        return self.parameter if self.piece is None else self.piece.view(self.parameter)

    def write_(self, values: Tensor) -> None:
        """Write values of the logical shape into the parameter."""
        if self.piece is None:
            self.parameter.copy_(values)
        else:
            self.piece.write_(self.parameter, values)

    def share_in(self, group: Mapping[str, Any]) -> Any:
        """The weight's share in its group."""
        share = group["shares"][self.place]
        return share[self.slot] if isinstance(share, list | tuple) else share

    def key(self, entry: str) -> str:
        """The key of an entry in the parameter's state."""
        if self.piece is None or entry in STORED_SHAPE_ENTRIES or not self.piece.name:
            return entry
        return f"{entry}[{self.piece.name}]"

    def entries(self, state: dict[str, Any]) -> dict[str, Any] | PieceState:
        """The weight's own entries of the parameter's state."""
        return state if self.piece is None else PieceState(self, state)


class PieceState:
    """The entries of a piece in its parameter's state: views of the shared entries, and the piece's own.

    The memory layout of a shared entry makes every piece of it a view.
    """

    def __init__(self, weight: Weight, state: dict[str, Any]) -> None:
        self._weight, self._state = weight, state

    def __contains__(self, entry: str) -> bool:
        return self._weight.key(entry) in self._state

    def __getitem__(self, entry: str) -> Any:
        value = self._state[self._weight.key(entry)]
        return self._weight.read(value) if entry in STORED_SHAPE_ENTRIES else value

    def get(self, entry: str) -> Any:
        value = self._state.get(self._weight.key(entry))
        return (
            value
            if value is None or entry not in STORED_SHAPE_ENTRIES
            else self._weight.read(value)
        )


def dual_shape(weight: Weight, solver: str | Solver) -> tuple[int, ...] | None:
    """The shape of the dual variable of the weight's solver; None if the solver has none."""
    chosen = find_solver(weight.geometry.manifold, weight.geometry.norm, solver)
    return chosen.dual_shape(weight.matrix_shape)


def full_dtype(weight: Tensor) -> torch.dtype:
    """The dtype of a weight's step: its own dtype, but at least float32."""
    return torch.promote_types(weight.dtype, torch.float32)
