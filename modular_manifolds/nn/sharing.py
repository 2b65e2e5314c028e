"""Paths of parts, and the refusal of weights that occur twice."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from modular_manifolds.errors import SharedWeightError


def joined(path: str, name: str) -> str:
    """The path of a part in PyTorch's dotted names."""
    return f"{path}.{name}" if path else name


def refuse_shared_weights(module: nn.Module) -> None:
    """Refuse a module in which a weight, or some of its memory, occurs at two paths.

    Raises:
        SharedWeightError: the message names both paths.
    """
    refuse_shared(module.named_parameters(remove_duplicate=False))


def refuse_shared(weights: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Refuse named weights if two of them are the same tensor or share memory, also in part.

    Raises:
        SharedWeightError: the message names both.
    """
    seen: dict[object, str] = {}
    in_storage: dict[int, list[tuple[int, int, str, Tensor]]] = {}
    for path, parameter in weights:
        # Only plain, dense parameters on a device have an address.
        dense = parameter.layout == torch.strided and not parameter.is_meta
        address = parameter.data_ptr() if type(parameter) is nn.Parameter and dense else 0
        first_path = seen.setdefault(address or id(parameter), path)
        if first_path != path:
            raise _shared(first_path, path)
        if address:
            storage = parameter.untyped_storage().data_ptr()
            in_storage.setdefault(storage, []).append((*_extent(parameter), path, parameter))
    for members in in_storage.values():
        if len(members) > 1:
            _refuse_overlaps(members)


def _refuse_overlaps(members: list[tuple[int, int, str, Tensor]]) -> None:
    """Refuse tensors of one storage, given with their extents, if two of them have a byte in common."""
    open_members: list[tuple[int, str, Tensor]] = []
    for first, end, path, tensor in sorted(members, key=lambda each: each[0]):
        open_members = [each for each in open_members if each[0] > first]
        for _, other_path, other in open_members:
            if bool(torch.isin(_places(tensor), _places(other)).any()):
                raise _shared(other_path, path)
        open_members.append((end, path, tensor))


def overlaps_itself(tensor: Tensor) -> bool:
    """Whether two entries of a dense tensor lie at one place in memory, as in an expanded tensor."""
    steps = sorted(
        (stride, size)
        for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
        if size > 1
    )
    reach = 0
    for stride, size in steps:
        if stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


def _extent(tensor: Tensor) -> tuple[int, int]:
    """The first byte of a tensor, and the one behind its last."""
    reach = sum(
        stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
    )
    first, size = int(tensor.storage_offset()), tensor.element_size()
    return first * size, (first + reach + 1) * size


def _places(tensor: Tensor) -> Tensor:
    """The first byte of each entry."""
    places = torch.full((), int(tensor.storage_offset()), dtype=torch.int64)
    for stride, size in zip(tensor.stride(), tensor.shape, strict=True):
        places = places[..., None] + stride * torch.arange(size)
    return places.flatten() * tensor.element_size()


def _shared(first: str, second: str) -> SharedWeightError:
    return SharedWeightError(
        "a weight",
        "must appear once in a network",
        f"one weight at both '{first}' and '{second}'",
        "Use copy.deepcopy or f ** n for fresh copies; a shared weight would be stepped twice.",
    )
