"""Functions of inputs and outputs that are tensors or tuples of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Part(Protocol):
    """A part of a composition."""

    @property
    def maps_parts(self) -> bool:
        """Whether it maps a tuple part by part."""
        ...

    def __call__(self, x: Any) -> Any: ...


def apply_part(part: Part, x: Any) -> Any:
    """`part(x)`; a bond that accepts any space maps a tuple part by part.

    The norm of a tuple is the sum over its parts, so the bond's sensitivity holds for the tuple too.
    """
    if isinstance(x, tuple) and part.maps_parts:
        return tuple(apply_part(part, each) for each in x)
    return part(x)


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
