"""Paths of parts, and the refusal of a weight that stands at two of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from modular_manifolds.errors import SharedWeightError


def joined(path: str, name: str) -> str:
    """The path of a part in PyTorch's dotted names."""
    return f"{path}.{name}" if path else name


def refuse_shared_weights(module: nn.Module) -> None:
    """Refuse a module in which one weight, or the memory of one, stands at two places.

    Raises:
        SharedWeightError: the message names both places.
    """
    refuse_shared(module.named_parameters(remove_duplicate=False))


def refuse_shared(weights: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Refuse named weights of which two are one, or lie in one memory.

    Raises:
        SharedWeightError: the message names both.
    """
    seen: dict[object, str] = {}
    for path, parameter in weights:
        before = seen.setdefault(_memory_of(parameter), path)
        if before != path:
            raise SharedWeightError(
                "a weight",
                "must appear once in a network",
                f"one weight at both '{before}' and '{path}'",
                "Use copy.deepcopy or f ** n for fresh copies; a shared weight would be stepped twice.",
            )


def _memory_of(parameter: nn.Parameter) -> object:
    """An identity that two parameters share if a step in place of one would move both."""
    # Only plain, dense parameters on a device have an address.
    dense = parameter.layout == torch.strided and not parameter.is_meta
    plain = type(parameter) is nn.Parameter and dense
    return (plain and parameter.data_ptr()) or id(parameter)
