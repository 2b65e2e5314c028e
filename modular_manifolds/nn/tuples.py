"""Sums and multiples of outputs: tensors, or tuples of them part by part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def added(outputs: Sequence[Any]) -> Any:
    """The sum of tensors, or of tuples part by part."""
    if isinstance(outputs[0], tuple):
        return tuple(added(list(parts)) for parts in zip(*outputs, strict=True))
    total = outputs[0]
    for each in outputs[1:]:
        total = total + each
    return total


def scaled(factor: float, output: Any) -> Any:
    """A tensor times a constant, or a tuple part by part."""
    if isinstance(output, tuple):
        return tuple(scaled(factor, part) for part in output)
    return factor * output
