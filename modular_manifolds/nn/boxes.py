"""Boxes: the intervals of a whole tensor that one process of a mesh holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from modular_manifolds.errors import ArgumentError

Box = tuple[tuple[int, int], ...]
"""Start and stop in each dimension of the whole tensor."""


def box_of(
    shape: Sequence[int],
    placements: Sequence[Any],
    mesh_shape: Sequence[int],
    coordinate: Sequence[int],
    *,
    name: str,
) -> Box:
    """The box of the process at `coordinate` of a mesh.

    A dimension of size n is split over k processes as by `torch.chunk`: chunks of ⌈n/k⌉, and the last ones may be
    smaller or empty. A plain shard splits from the first mesh dimension to the last. A strided shard, which FSDP2
    makes over tensor parallelism, splits after all later mesh dimensions.

    Args:
        shape: the shape of the whole tensor.
        placements: one for each mesh dimension.
        mesh_shape: the sizes of the mesh.
        coordinate: the place of the process in the mesh.
        name: the name of the weight, for errors.

    Raises:
        ArgumentError: a placement is partial or unknown.
    """
    orders: dict[int, list[int]] = {}
    for axis in reversed(range(len(placements))):
        placement = placements[axis]
        if placement.is_replicate():
            continue
        dim, factor = getattr(placement, "dim", None), getattr(placement, "split_factor", None)
        if dim is None or placement.is_partial():
            raise placement_error(name, placements, str(placement))
        order = orders.setdefault(dim % len(shape), [])
        if factor is None and placement.is_shard():
            order.insert(0, axis)
        elif factor == math.prod(mesh_shape[each] for each in order):
            order.append(axis)
        else:
            raise placement_error(name, placements, str(placement))
    return tuple(
        _interval(size, [(mesh_shape[axis], coordinate[axis]) for axis in orders.get(dim, [])])
        for dim, size in enumerate(shape)
    )


def _interval(size: int, splits: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The interval of a dimension after splits into (count, number) chunks, one after another."""
    start, stop = 0, size
    for count, number in splits:
        chunk = -(-(stop - start) // count)
        start, stop = min(start + number * chunk, stop), min(start + (number + 1) * chunk, stop)
    return start, stop


def size_of(box: Box) -> int:
    """The number of entries in a box."""
    return math.prod(stop - start for start, stop in box)


def cut(whole: Tensor, box: Box) -> Tensor:
    """The box of a whole tensor, as a view."""
    for dim, (start, stop) in enumerate(box):
        whole = whole.narrow(dim, start, stop - start)
    return whole


def check_box(local: Tensor, box: Box, placements: Sequence[Any], *, name: str) -> None:
    """Refuse a shard that does not have the shape of its box.

    Raises:
        ArgumentError: torch has placed the tensor in another way.
    """
    expected = tuple(stop - start for start, stop in box)
    if tuple(local.shape) != expected and (local.numel() or math.prod(expected)):
        raise placement_error(name, placements, f"a shard of shape {tuple(local.shape)}")


def placement_error(name: str, placements: Sequence[Any], seen: str) -> ArgumentError:
    """The error of a tensor whose boxes are not known."""
    placed = ", ".join(map(str, placements))
    return ArgumentError(
        f"the weight '{name}' with placements ({placed})",
        "must be sharded by Shard, by Replicate, or by fully_shard over tensor parallelism",
        seen,
        "Call redistribute with such placements before the optimizer is built.",
    )
