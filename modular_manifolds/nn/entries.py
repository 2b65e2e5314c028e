"""The number of entries of weights, and the largest weight that torch can hold."""

from __future__ import annotations

import math
from typing import Final

from torch import nn

from modular_manifolds.errors import ArgumentError

MOST_ENTRIES: Final = 2**59
"""Entries of a weight, at 8 bytes each, must be fewer than 2^62 bytes."""


def check_entries(shape: tuple[int, ...], *, argument: str) -> None:
    """Refuse a weight of more entries than torch can count the bytes of.

    Raises:
        ArgumentError: there are more.
    """
    if math.prod(shape) >= MOST_ENTRIES:
        sizes = " × ".join(
            str(each) if each < MOST_ENTRIES else f"2^{each.bit_length() - 1}" for each in shape
        )
        raise ArgumentError(
            argument, "must have fewer than 2^59 entries", sizes, "Choose smaller sizes."
        )


def entries_of(module: nn.Module) -> int:
    """The number of entries of all weights of a module."""
    # Of a module without others inside, without torch's walk: trees are made often.
    simple = not vars(module)["_modules"]
    weights = vars(module)["_parameters"].values() if simple else module.parameters()
    return sum(each.numel() for each in weights if each is not None)
