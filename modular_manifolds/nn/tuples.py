"""Sums and multiples of outputs, which are tensors or tuples of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def sum_outputs(outputs: Sequence[Any]) -> Any:
    """The sum of tensors, or of tuples part by part."""
    if isinstance(outputs[0], tuple):
        return tuple(sum_outputs(list(parts)) for parts in zip(*outputs, strict=True))
    total = outputs[0]
    for each in outputs[1:]:
        total = total + each
    return total


def scale_output(factor: float, output: Any) -> Any:
    """A tensor, or each tensor of a tuple, multiplied by a constant."""
    if isinstance(output, tuple):
        return tuple(scale_output(factor, part) for part in output)
    return factor * output
