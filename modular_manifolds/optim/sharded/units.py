"""Units of a sharded parameter: the numbers of the matrices or rows that a shard's entries belong to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from modular_manifolds.nn.boxes import Box
from modular_manifolds.optim.damping import unit_shape
from modular_manifolds.optim.weight import Weight


class Units:
    """The unit of every entry of one shard, and the largest entries of all units.

    Units are numbered through all weights of the parameter. `numbers` has one dimension for each dimension of the
    shard, of size 1 if the unit does not depend on it, so it is small: a matrix has one number, and stacked or fused
    matrices have one for each row or column. Entries of no weight have the last number, `count`.

    Args:
        weights: all weights of the parameter.
        box: the box of the shard.
        device: the device of the shard.
    """

    def __init__(self, weights: Sequence[Weight], box: Box, device: torch.device) -> None:
        shape = tuple(weights[0].parameter.shape)
        shapes = [unit_shape(each.shape, each.geometry.coupled_dims) for each in weights]
        self.counts = [math.prod(each) for each in shapes]
        self.count = sum(self.counts)
        numbers = torch.full((1,) * len(shape), self.count)
        start = 0
        for weight, units in zip(weights, shapes, strict=True):
            own = torch.arange(start, start + math.prod(units)).reshape(units)
            start += own.numel()
            if weight.piece is not None:
                own = _numbers_of_piece(own, weight, self.count)
            # Pieces do not overlap.
            numbers = torch.minimum(numbers, own)
        for dim, (low, high) in enumerate(box):
            if numbers.shape[dim] > 1:
                numbers = numbers.narrow(dim, low, high - low)
        self.numbers = numbers.contiguous().to(device)
        self._independent = tuple(d for d, size in enumerate(numbers.shape) if size == 1)
        self._is_single = self.count == 1 and self.numbers.numel() == 1 and not int(self.numbers)

    def largest(self, gradient: Tensor, dtype: torch.dtype) -> Tensor:
        """`max |G|` of each unit over this shard, shape (count,); NaN if an entry is, and 0 without entries."""
        found = torch.zeros(self.count + 1, dtype=dtype, device=gradient.device)
        if not gradient.numel():
            return found[: self.count]
        sizes = gradient.abs()
        if self._independent:
            sizes = sizes.amax(dim=self._independent, keepdim=True)
        sizes = sizes.to(dtype).flatten()
        if self._is_single:
            return sizes
        found = found.scatter_reduce(0, self.numbers.flatten(), sizes, "amax")
        return found[: self.count]

    def mask(self, flags: Tensor) -> Tensor:
        """One flag for each unit as flags of the shard's entries, in a shape that broadcasts over the shard."""
        if self._is_single:
            return flags.reshape(self.numbers.shape)
        return torch.cat((flags, flags.new_zeros(1)))[self.numbers]

    def spread(self, shares: Sequence[float]) -> Tensor:
        """Whether the weight of each unit has a share above 0."""
        flags = [share > 0 for share, n in zip(shares, self.counts, strict=True) for _ in range(n)]
        return torch.tensor(flags, device=self.numbers.device)


def _numbers_of_piece(own: Tensor, weight: Weight, other: int) -> Tensor:
    """The numbers of a piece's units over the stored parameter, and `other` outside the piece.

    A stored dimension on which the numbers do not depend has size 1.
    """
    piece = weight.piece
    assert piece is not None
    logical = [*([d] for d in piece.batch), list(piece.rows), list(piece.columns)]
    lengths = list(piece.unflattened)
    for d, _, length in piece.narrowed:
        lengths[d] = length
    varying = {d for d, _, _ in piece.narrowed}
    for dims, size in zip(logical, own.shape, strict=True):
        varying.update(dims if size > 1 else [])
    grid = torch.full(
        [size if d in varying else 1 for d, size in enumerate(piece.unflattened)], other
    )
    view = grid
    for d, first, length in piece.narrowed:
        view = view.narrow(d, first, length)
    view = view.permute(piece.batch + piece.rows + piece.columns)
    split = [
        lengths[d] if size > 1 else 1
        for dims, size in zip(logical, own.shape, strict=True)
        for d in dims
    ]
    view.copy_(own.reshape(split).expand(view.shape))
    full: list[int] = []
    compact: list[int] = []
    for size, dims in zip(
        weight.parameter.shape, _split_dims(weight.parameter.shape, piece.unflattened), strict=True
    ):
        varies = bool(varying & set(dims))
        full += [piece.unflattened[d] if varies else 1 for d in dims]
        compact.append(size if varies else 1)
    return grid.expand(full).reshape(compact)


def _split_dims(shape: Sequence[int], unflattened: Sequence[int]) -> list[list[int]]:
    """The dimensions of the split shape that each stored dimension has become."""
    dims: list[list[int]] = []
    position = 0
    for size in shape:
        own: list[int] = []
        while not own or math.prod(unflattened[d] for d in own) < size:
            own.append(position)
            position += 1
        dims.append(own)
    dims[-1] += range(position, len(unflattened))
    return dims
