"""How large the data of a specification may be: refused before anything is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

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

    A few lines of YAML can stand for more values than any memory holds: an alias is a value at a second place. Such a
    value is looked at once and counted at each of its places.

    Raises:
        SpecError: the message names the place.
    """
    known: dict[int, _Extent] = {}
    # In a list of its own, so that data which are a single number are looked at too.
    path = [_Container([data], "")]
    while path:
        inner = path[-1]
        for key, part in inner.rest:
            if isinstance(part, int) and not -LARGEST < part < LARGEST:
                raise SpecError(
                    _place(path, key),
                    "must be a number below 2^64",
                    f"one of {part.bit_length()} bits",
                    "Write a smaller number.",
                )
            if not isinstance(part, dict | list | tuple):
                inner.values += 1
            elif (extent := known.get(id(part))) is not None:
                inner.add(extent)
                _check_levels(path, extent.levels + 1)
            elif not any(part is each.value for each in path):
                # A container that holds itself is refused by the model, which has the right words.
                path.append(_Container(part, str(key)))
                _check_levels(path, 0)
                break
        else:
            path.pop()
            known[id(inner.value)] = found = _Extent(inner.values, inner.levels)
            if path:
                path[-1].add(found)
        if inner.values > MOST_VALUES:
            raise SpecError(
                "the specification",
                f"must hold at most {MOST_VALUES:,} values, aliases written out",
                "more",
                "Write a repeated module as a power.",
            )


class _Extent(NamedTuple):
    """How many values a container holds, itself among them, and how many containers inside one another."""

    values: int
    levels: int


class _Container:
    """A list or a mapping whose parts are being counted."""

    def __init__(self, value: Any, key: str) -> None:
        self.value, self.key = value, key
        self.values, self.levels = 1, 0
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        self.rest: Iterator[tuple[object, object]] = iter(parts)

    def add(self, part: _Extent) -> None:
        self.values += part.values
        self.levels = max(self.levels, part.levels + 1)


def _check_levels(path: list[_Container], below: int) -> None:
    # The list around the data is no level of theirs.
    if len(path) - 1 + below > MOST_LEVELS:
        raise SpecError(
            _place(path[:8], "…"),
            f"must be at most {MOST_LEVELS} lists and mappings deep",
            "more",
            "Put modules in a row instead of inside one another.",
        )


def _place(above: list[_Container], key: object) -> str:
    # The first is the list around the data, and the key in it is none of theirs.
    keys = [*(each.key for each in above[1:]), str(key)][1:]
    return ".".join(keys) or "the specification"
