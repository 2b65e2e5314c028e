"""Logical matrices: the matrices that one stored tensor holds, as views of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """One matrix, or one stack of equal matrices, inside a stored tensor.

    The stored tensor is split to the shape `unflattened`, cut by `narrowed`, and its dimensions are read in the order
    batch, rows, columns. The logical shape is (*batch, m, n), with m the product of the row dimensions and n that of the
    column dimensions. A row maps to an output and a column to an input, so a weight stored as (in, out) lists its
    dimensions the other way round.

    Args:
        name: the name of the piece inside its tensor, such as `q`; empty if it is the whole tensor.
        unflattened: the stored shape, with dimensions split into several.
        narrowed: cuts (dimension, start, length) of the split shape.
        batch: dimensions of the split shape; every dimension stands in one of the three.
        rows: dimensions of the split shape; every dimension stands in one of the three.
        columns: dimensions of the split shape; every dimension stands in one of the three.
    """

    name: str
    unflattened: tuple[int, ...]
    narrowed: tuple[tuple[int, int, int], ...]
    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    shape: tuple[int, ...] = field(init=False)
    """The logical shape (*batch, m, n)."""

    def __post_init__(self) -> None:
        sizes = list(self.unflattened)
        for dim, _, length in self.narrowed:
            sizes[dim] = length
        rows, columns = (math.prod(sizes[d] for d in dims) for dims in (self.rows, self.columns))
        object.__setattr__(self, "shape", (*(sizes[d] for d in self.batch), rows, columns))

    def view(self, stored: Tensor) -> Tensor:
        """The piece inside the memory of `stored`, one dimension for each of `batch`, `rows` and `columns`."""
        found = stored.view(self.unflattened)
        for dim, start, length in self.narrowed:
            found = found.narrow(dim, start, length)
        return found.permute(self.batch + self.rows + self.columns)

    def read(self, stored: Tensor) -> Tensor:
        """The piece in its logical shape: a view of `stored`, or a copy if its memory is not laid out for one."""
        return self.view(stored).reshape(self.shape)

    def write_(self, stored: Tensor, values: Tensor) -> None:
        """Write values of the logical shape into `stored`."""
        view = self.view(stored)
        view.copy_(values.reshape(view.shape))

    def values(self) -> dict[str, Any]:
        """The piece as values that JSON can hold."""
        return {
            "name": self.name,
            "unflattened": list(self.unflattened),
            "narrowed": [list(cut) for cut in self.narrowed],
            "batch": list(self.batch),
            "rows": list(self.rows),
            "columns": list(self.columns),
        }

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Piece:
        """Read back what `values` wrote."""
        return cls(
            str(values["name"]),
            tuple(map(int, values["unflattened"])),
            tuple((int(d), int(s), int(n)) for d, s, n in values["narrowed"]),
            tuple(map(int, values["batch"])),
            tuple(map(int, values["rows"])),
            tuple(map(int, values["columns"])),
        )


def logical_name(path: str, piece: Piece | None) -> str:
    """The name of a logical matrix: `h.0.attn.c_attn.weight[q]`, or the path alone for a whole tensor."""
    return f"{path}[{piece.name}]" if piece is not None and piece.name else path
