"""The inputs of reports: tensors, arrays or lists in any shape of the network, as vectors of its input space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from modular_manifolds.composition.folding import Algebra, fold
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.space import Space
from modular_manifolds.composition.tree import Tree, leading, leaves
from modular_manifolds.errors import ArgumentError, NonFiniteError, ShapeError


def as_tensor(values: Any, *, argument: str) -> Tensor:
    """A copy of a tensor, a numpy array or nested lists, as a tensor.

    Raises:
        ArgumentError: the values are not real numbers.
    """
    if isinstance(values, Tensor):
        tensor = values.detach().clone()
    else:
        try:
            tensor = torch.tensor(values, device="cpu")
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError(
                argument,
                "must be a tensor, or an array or lists of numbers",
                f"{type(values).__name__} ({' '.join(str(error).split())[:80]})",
                "Convert them with torch.as_tensor.",
            ) from None
    if tensor.is_complex():
        raise ArgumentError(
            argument,
            "must be real",
            tensor.dtype,
            "Pass the real and the imaginary part as two features.",
        )
    if tensor.is_meta or tensor.layout != torch.strided:
        raise ArgumentError(
            argument,
            "must be a dense tensor with values",
            f"{tensor.layout} on {tensor.device}",
            "Pass the data itself.",
        )
    return tensor


def as_float64(points: Tensor, tree: Tree, *, argument: str) -> Tensor:
    """Points in float64; tokens for a network that begins with an embedding become one-hot vectors.

    Raises:
        ArgumentError: a token is out of range.
        NonFiniteError: an entry is NaN or infinite.
    """
    source = tree.signature.source
    assert isinstance(source, Space)
    if not points.is_floating_point() and takes_tokens(tree):
        lowest, highest = (
            (int(each) for each in torch.aminmax(points)) if points.numel() else (0, 0)
        )
        if lowest < 0 or highest >= source.size:
            raise ArgumentError(
                argument,
                f"must be tokens from 0 to {source.size - 1}",
                f"{lowest} to {highest}",
                "Pass token ids.",
            )
        points = functional.one_hot(points.long(), source.size)
    points = points.to(torch.float64)
    if not bool(torch.isfinite(points).all()):
        raise NonFiniteError(argument, "must be finite", "NaN or infinity", "Look at the data.")
    return points


def as_vectors(points: Any, tree: Tree, *, argument: str) -> Tensor:
    """Points of any leading shape as (batch, features), or (batch, *leading, features), in float64 on the CPU.

    A network that mixes positions has `leading` dimensions in its tree; a point without a batch becomes a batch of one.
    Images become the vectors of `mm.Flatten`.

    Args:
        points: a tensor, an array or lists, of a shape that the network takes.
        tree: the tree of the network in float64.
        argument: the caller's name for the points.

    Raises:
        ShapeError: the network does not take vectors of this size.
        ArgumentError: the points are not real numbers, or a token is out of range.
        NonFiniteError: an entry is NaN or infinite.
    """
    tensor = as_tensor(points, argument=argument)
    x = as_float64(tensor, tree, argument=argument).cpu()
    source = tree.signature.source
    assert isinstance(source, Space)
    size, inner = source.size, len(leading(tree))
    if x.dim() and x.shape[-1] == size:
        # Positions without a batch become a batch of one.
        x = x.reshape(-1, *x.shape[-1 - inner :]) if x.dim() > inner else x
        if x.dim() == inner + 2:
            return x
    dims = item_dims(tuple(x.shape), size)
    if inner or dims is None:
        raise feature_mismatch(argument, tuple(tensor.shape), size, inner)
    return x.reshape(-1, size)


def item_dims(shape: tuple[int, ...], size: int) -> int | None:
    """The number of last dimensions with `size` entries in total; None if there is none."""
    for dims in range(1, len(shape) + 1):
        if math.prod(shape[-dims:]) == size:
            return dims
    return None


def takes_tokens(tree: Tree) -> bool:
    """Whether all first leaves are embeddings, so that the network takes token ids."""
    first = fold(tree, FIRST_LEAVES)
    return bool(first) and all(leaf.kind == "lookup" for leaf in first)


def flattens(tree: Tree) -> bool:
    """Whether the network takes images, because an `mm.Flatten` comes before the first weight."""
    front = takewhile(lambda leaf: leaf.weight is None, leaves(tree))
    return any(leaf.kind == "flatten" for leaf in front)


def _concatenate(parts: Sequence[list[Leaf]]) -> list[Leaf]:
    return [leaf for part in parts for leaf in part]


FIRST_LEAVES: Final = Algebra(
    "the leaves that take the network's input",
    leaf=lambda leaf: [] if leaf.identity else [leaf],
    series=lambda parts: next((part for part in parts if part), []),
    parallel=_concatenate,
    sum=_concatenate,
    scale=lambda _, part: part,
)


def feature_mismatch(
    argument: str, shape: tuple[int, ...], size: int, inner: int = 0
) -> ShapeError:
    """The error for points that do not fit the network."""
    expected = (
        f"(points, positions, {size})" if inner else f"(points, {size}), or images of so many"
    )
    return ShapeError(
        argument,
        f"must have {size} features, as the network takes",
        f"{shape[-1] if shape else 'a number'} in a tensor of shape {shape}",
        f"Pass the data of the network's training, of shape {expected}"
        + (" or more." if inner else " entries."),
    )
