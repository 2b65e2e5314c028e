"""Logical matrices: views of the matrices inside a stored tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """One matrix, or one stack of equal matrices, inside a stored tensor.

    The stored tensor is reshaped to `unflattened` and cut by `narrowed`; then its dimensions are permuted to the order
    batch, rows, columns. The logical shape is (*batch, m, n), with m the product of the row dimensions and n that of the
    column dimensions. A row belongs to an output and a column to an input, so a weight stored as (in, out) lists its
    dimensions in reverse.

    Args:
        name: the name of the piece inside its tensor, such as `q`; empty if it is the whole tensor.
        unflattened: the stored shape with some dimensions split.
        narrowed: cuts (dimension, start, length) of the split shape.
        batch: dimensions of the split shape that number the matrices. Every dimension is in exactly one of
            `batch`, `rows` and `columns`.
        rows: dimensions of the split shape that are flattened to the rows.
        columns: dimensions of the split shape that are flattened to the columns.
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
        """The piece as a view of `stored`, with the dimensions `batch`, `rows` and `columns` not yet merged."""
        view = stored.view(self.unflattened)
        for dim, start, length in self.narrowed:
            view = view.narrow(dim, start, length)
        return view.permute(self.batch + self.rows + self.columns)

    def read(self, stored: Tensor) -> Tensor:
        """The piece in its logical shape: a view of `stored` if its strides allow, otherwise a copy."""
        return self.view(stored).reshape(self.shape)

    def write_(self, stored: Tensor, values: Tensor) -> None:
        """Write values of the logical shape into `stored`."""
        view = self.view(stored)
        view.copy_(values.reshape(view.shape))

    def values(self) -> dict[str, Any]:
        """The piece as a JSON object."""
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
        """The piece of a JSON object that `values` returned."""
        return cls(
            str(values["name"]),
            tuple(map(int, values["unflattened"])),
            tuple((int(d), int(s), int(n)) for d, s, n in values["narrowed"]),
            tuple(map(int, values["batch"])),
            tuple(map(int, values["rows"])),
            tuple(map(int, values["columns"])),
        )


def logical_name(path: str, piece: Piece | None) -> str:
    """The name of a logical matrix: `h.0.attn.c_attn.weight[q]`, or only the path for a whole tensor."""
    return f"{path}[{piece.name}]" if piece is not None and piece.name else path
