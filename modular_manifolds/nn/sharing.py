"""Paths of parts, and the refusal of weights that occur twice."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from modular_manifolds.errors import SharedWeightError


def joined(path: str, name: str) -> str:
    """The path of a part in PyTorch's dotted names."""
    return f"{path}.{name}" if path else name


def refuse_shared_weights(module: nn.Module) -> None:
    """Refuse a module in which a weight, or its memory, occurs at two paths.

    Raises:
        SharedWeightError: the message names both paths.
    """
    refuse_shared(module.named_parameters(remove_duplicate=False))


def refuse_shared(weights: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Refuse named weights if two of them are the same tensor or share memory.

    Raises:
        SharedWeightError: the message names both.
    """
    seen: dict[object, str] = {}
    for path, parameter in weights:
        first_path = seen.setdefault(_memory_of(parameter), path)
        if first_path != path:
            raise SharedWeightError(
                "a weight",
                "must appear once in a network",
                f"one weight at both '{first_path}' and '{path}'",
                "Use copy.deepcopy or f ** n for fresh copies; a shared weight would be stepped twice.",
            )


def _memory_of(parameter: nn.Parameter) -> object:
    """A key that is equal for two parameters if an in-place step of one changes the other."""
    # Only plain, dense parameters on a device have an address.
    dense = parameter.layout == torch.strided and not parameter.is_meta
    plain = type(parameter) is nn.Parameter and dense
    return (plain and parameter.data_ptr()) or id(parameter)
