"""How large the data of a specification may be: refused before anything is made of them."""

from __future__ import annotations

from typing import Final

from modular_manifolds.errors import SpecError

MOST_VALUES: Final = 1_000_000
"""Numbers, texts, lists and mappings in a specification; a value that stands at two places counts twice."""
MOST_LEVELS: Final = 100
"""Lists and mappings inside one another."""
MOST_BYTES: Final = 2**24
"""Bytes of a file with a specification."""
MOST_LINES: Final = 400_000
"""Lines and commas of YAML, which is slow to read."""
LARGEST: Final = 2**64
"""No whole number of a specification reaches this one, up or down."""


def check_extent(data: object) -> None:
    """Refuse data that are too many, too deep, or hold a number that no machine word holds.

    A few lines of YAML can stand for more values than any memory holds: an alias is a value at a second place.

    Raises:
        SpecError: the message names the place.
    """
    seen = 0
    above: list[int] = []
    waiting: list[tuple[object, tuple[str, ...], bool]] = [(data, (), False)]
    while waiting:
        value, where, leaving = waiting.pop()
        if leaving:
            above.pop()
            continue
        seen += 1
        if seen > MOST_VALUES:
            raise SpecError(
                "the specification",
                f"must hold at most {MOST_VALUES:,} values, aliases written out",
                "more",
                "Write a repeated module as a power.",
            )
        if isinstance(value, int) and not -LARGEST < value < LARGEST:
            raise SpecError(
                ".".join(where) or "the specification",
                "must be a number below 2^64",
                f"one of {value.bit_length()} bits",
                "Write a smaller number.",
            )
        if not isinstance(value, dict | list | tuple) or id(value) in above:
            # What contains itself is refused by the model, which knows the right words.
            continue
        if len(above) == MOST_LEVELS:
            raise SpecError(
                ".".join(where[:8]) + " …",
                f"must be at most {MOST_LEVELS} lists and mappings deep",
                "more",
                "Put modules in a row instead of inside one another.",
            )
        above.append(id(value))
        waiting.append((value, where, True))
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        waiting.extend((part, (*where, str(key)), False) for key, part in parts)
