"""Splits: how one stored tensor is divided into logical matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modular_manifolds.arguments import check_count
from modular_manifolds.errors import ArgumentError, ShapeError
from modular_manifolds.nn.piece import Piece


@dataclass(frozen=True)
class Split:
    """The division of a stored weight into experts, parts and heads.

    The stored shape is (out, in, *kernel), or (in, out, *kernel) if `transpose`; kernel dimensions count as inputs. Each
    part is one logical matrix, or a stack of them if it has heads or experts.

    Args:
        parts: the number of equal consecutive parts.
        heads: the number of heads of each part: one number, or one for each part, such as `(32, 8, 8)` for grouped
            queries. All heads have one width.
        sizes: the sizes of unequal parts.
        experts: True if the first dimension counts experts; a number must equal its size.
        dim: the divided dimension: 0 for the outputs, 1 for the inputs, as in an output projection.
        transpose: whether the weight is stored as (in, out); None for the known storage of its module.
        names: a name for each part, such as `("q", "k", "v")`.
        interleaved: whether each head holds all parts, as in GPT-NeoX; without heads, whether parts alternate row by row.

    Raises:
        ArgumentError: an argument has the wrong type, or two of them contradict each other.
    """

    parts: int | None = None
    heads: int | tuple[int, ...] | None = None
    sizes: tuple[int, ...] | None = None
    experts: bool | int = False
    dim: int = 0
    transpose: bool | None = None
    names: tuple[str, ...] | None = None
    interleaved: bool = False

    def __post_init__(self) -> None:
        for name in ("heads", "sizes", "names"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        if self.parts is not None:
            check_count(self.parts, argument="Split(parts)", what="parts")
        for name, value in (("heads", self.heads), ("sizes", self.sizes)):
            if isinstance(value, tuple) or (value is not None and name == "heads"):
                for each in value if isinstance(value, tuple) else (value,):
                    check_count(each, argument=f"Split({name})", what=name)
            elif value is not None:
                raise ArgumentError(
                    "Split(sizes)", "must be a tuple", repr(value), "Pass one size for each part."
                )
        if self.dim not in (0, 1):
            raise ArgumentError(
                "Split(dim)",
                "must be 0 for the outputs or 1 for the inputs",
                repr(self.dim),
                "Use transpose=True for a weight that is stored as (in, out).",
            )
        counts = {
            name: len(value)
            for name in ("heads", "sizes", "names")
            if isinstance(value := getattr(self, name), tuple)
        }
        if self.parts is not None:
            counts["parts"] = self.parts
        if len(set(counts.values())) > 1:
            raise ArgumentError(
                "Split(parts, heads, sizes, names)",
                "must agree on the number of parts",
                ", ".join(f"{n} of {name}" for name, n in counts.items()),
                "Give one entry for each part.",
            )

    @property
    def count(self) -> int:
        """The number of parts."""
        for value in (self.sizes, self.heads, self.names):
            if isinstance(value, tuple):
                return len(value)
        return self.parts or 1

    @property
    def cuts(self) -> bool:
        """Whether the split divides the tensor at all."""
        return self.count > 1 or self.heads is not None or bool(self.experts)

    def pieces(self, shape: Sequence[int], *, argument: str = "Split") -> tuple[Piece, ...]:
        """The logical matrices of a stored tensor of this shape, one for each part.

        Raises:
            ShapeError: the shape cannot be divided like this; the message begins with `argument`.
        """
        shape = tuple(shape)
        expert_dims = 1 if self.experts else 0
        if len(shape) < expert_dims + 2:
            need = "three dimensions for experts" if expert_dims else "at least two dimensions"
            raise ShapeError(
                argument,
                f"needs a weight of {need}",
                shape,
                "Match matrices only, such as '*.weight'.",
            )
        if self.experts is not False and self.experts is not True and self.experts != shape[0]:
            raise ShapeError(
                argument,
                f"must have {self.experts} experts in the first dimension",
                shape,
                "Pass experts=True, or the size of the first dimension.",
            )
        row, column = expert_dims, expert_dims + 1
        if self.transpose:
            row, column = column, row
        axis = row if self.dim == 0 else column
        cuts = self._cut(shape[axis], argument)
        names = self.names or tuple(map(str, range(self.count)))
        return tuple(
            _piece(name if len(names) > 1 else "", shape, (expert_dims, row, axis), *cut)
            for name, cut in zip(names, cuts, strict=True)
        )

    def _cut(self, size: int, argument: str) -> list[tuple[tuple[int, ...], _Selection]]:
        """For each part: the sizes into which the divided dimension is unflattened, and the part's selection from them."""
        heads = (self.heads,) * self.count if isinstance(self.heads, int) else self.heads
        side = "outputs" if self.dim == 0 else "inputs"
        if heads is None:
            return self._without_heads(size, side, argument)
        total = sum(heads)
        if self.sizes is not None:
            _check_sizes(self.sizes, size, side, argument)
            widths = {divmod(s, h) for s, h in zip(self.sizes, heads, strict=True)}
            if len(widths) != 1 or widths.pop()[1] != 0:
                raise ShapeError(
                    argument,
                    "must give every head one width",
                    f"sizes {self.sizes} for heads {heads}",
                    "Pass one number of heads for each part, such as heads=(32, 8, 8).",
                )
        _check_divides(total, size, side, f"heads={self.heads}", argument)
        width = size // total
        if not self.interleaved or len(heads) == 1:
            starts = [sum(heads[:i]) for i in range(len(heads))]
            return [
                ((total, width), _Selection((0, start, count), (0,), (1,)))
                if len(heads) > 1
                else ((total, width), _Selection(None, (0,), (1,)))
                for start, count in zip(starts, heads, strict=True)
            ]
        groups = min(heads)
        if any(each % groups for each in heads):
            raise ShapeError(
                argument,
                "must have multiples of the smallest number of heads if they are interleaved",
                heads,
                "Pass numbers that the smallest one divides.",
            )
        counts = [each // groups for each in heads]
        sizes = (groups, sum(counts), width)
        starts = [sum(counts[:i]) for i in range(len(counts))]
        return [
            (sizes, _Selection((1, start, n), (0, 1), (2,)))
            if n > 1
            else (sizes, _Selection((1, start, n), (0,), (1, 2)))
            for start, n in zip(starts, counts, strict=True)
        ]

    def _without_heads(
        self, size: int, side: str, argument: str
    ) -> list[tuple[tuple[int, ...], _Selection]]:
        if self.count == 1:
            return [((size,), _Selection(None, (), (0,)))]
        if self.interleaved:
            _check_divides(self.count, size, side, f"parts={self.count}", argument)
            sizes = (size // self.count, self.count)
            return [(sizes, _Selection((1, i, 1), (), (0, 1))) for i in range(self.count)]
        if self.sizes is not None:
            _check_sizes(self.sizes, size, side, argument)
            parts = self.sizes
        else:
            _check_divides(self.count, size, side, f"parts={self.count}", argument)
            parts = (size // self.count,) * self.count
        starts = [sum(parts[:i]) for i in range(len(parts))]
        return [
            ((size,), _Selection((0, s, n), (), (0,))) for s, n in zip(starts, parts, strict=True)
        ]


@dataclass(frozen=True)
class _Selection:
    """One part of the divided dimension, after that is unflattened into several dimensions.

    Args:
        narrowed: the selected range (dimension, start, length); None for everything.
        batch: the dimensions that count the matrices of a stack.
        own: the dimensions inside one matrix.
    """

    narrowed: tuple[int, int, int] | None
    batch: tuple[int, ...]
    own: tuple[int, ...]


def _piece(
    name: str,
    shape: tuple[int, ...],
    dims: tuple[int, int, int],
    sizes: tuple[int, ...],
    selection: _Selection,
) -> Piece:
    """A part as a piece of the stored tensor.

    Args:
        name: the part's name.
        shape: the stored shape.
        dims: the number of expert dimensions, the dimension of the outputs, and the divided dimension.
        sizes: the sizes into which the divided dimension is unflattened.
        selection: the part of these dimensions.
    """
    expert_dims, row, axis = dims
    moved = [d if d < axis else d + len(sizes) - 1 for d in range(len(shape))]
    own = tuple(axis + d for d in selection.own)
    others = tuple(moved[d] for d in range(expert_dims, len(shape)) if d not in (axis, row))
    rows, columns = (own, others) if axis == row else ((moved[row],), own + others)
    narrowed: tuple[tuple[int, int, int], ...] = ()
    if selection.narrowed is not None:
        dim, start, length = selection.narrowed
        narrowed = ((axis + dim, start, length),)
    unflattened = (*shape[:axis], *sizes, *shape[axis + 1 :])
    batch = (*range(expert_dims), *(axis + d for d in selection.batch))
    return Piece(name, unflattened, narrowed, batch, rows, columns)


def is_whole(piece: Piece, shape: Sequence[int]) -> bool:
    """Whether the piece is the whole stored tensor, as a matrix or a stack of matrices."""
    n = len(shape)
    whole = (tuple(shape), (), tuple(range(n - 2)), (n - 2,), (n - 1,))
    layout = (piece.unflattened, piece.narrowed, piece.batch, piece.rows, piece.columns)
    return n >= 2 and layout == whole


def _check_divides(count: int, size: int, side: str, setting: str, argument: str) -> None:
    if size % count:
        raise ShapeError(
            argument,
            f"must cut the {size} {side} into equal pieces",
            setting,
            f"Pass numbers that divide {size}, or sizes=(...) for unequal parts.",
        )


def _check_sizes(sizes: tuple[int, ...], size: int, side: str, argument: str) -> None:
    if sum(sizes) != size:
        raise ShapeError(
            argument,
            f"must have sizes that add up to the {size} {side}",
            f"{sizes}, together {sum(sizes)}",
            "Pass the size of each part.",
        )
