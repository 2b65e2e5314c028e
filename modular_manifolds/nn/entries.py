"""The number of entries of a weight, and its limit in torch."""

from __future__ import annotations

import math
from typing import Final

from torch import nn

from modular_manifolds.errors import ArgumentError

ENTRIES_LIMIT: Final = 2**59
"""A weight must have fewer entries than this: at 8 bytes each, fewer than 2^62 bytes."""


def check_entries(shape: tuple[int, ...], *, argument: str) -> None:
    """Refuse a weight of `ENTRIES_LIMIT` entries or more, because torch cannot count its bytes.

    Raises:
        ArgumentError: the weight has too many entries.
    """
    if math.prod(shape) >= ENTRIES_LIMIT:
        sizes = " × ".join(
            str(each) if each < ENTRIES_LIMIT else f"2^{each.bit_length() - 1}" for each in shape
        )
        raise ArgumentError(
            argument, "must have fewer than 2^59 entries", sizes, "Choose smaller sizes."
        )


def entries_of(module: nn.Module) -> int:
    """The number of entries of all weights of a module."""
    # Trees are made often, so torch's walk over submodules is avoided if there are none.
    simple = not vars(module)["_modules"]
    weights = vars(module)["_parameters"].values() if simple else module.parameters()
    return sum(each.numel() for each in weights if each is not None)
