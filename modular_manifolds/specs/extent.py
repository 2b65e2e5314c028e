"""Limits on the size of a specification's data, checked before the data is used."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from modular_manifolds.errors import SpecError

MAX_VALUES: Final = 1_000_000
"""The largest number of values (numbers, texts, lists and mappings) in a specification, with aliases counted each time."""
MAX_NESTING_LEVELS: Final = 100
"""The largest nesting depth of lists and mappings."""
MAX_FILE_BYTES: Final = 2**24
"""The largest size of a specification file, in bytes."""
MAX_LINES: Final = 400_000
"""The largest number of lines and commas in YAML, which is slow to parse."""
INTEGER_LIMIT: Final = 2**64
"""Integers of a specification must be smaller than this in absolute value."""


def check_extent(data: object) -> None:
    """Refuse data with too many values, too deep nesting, or integers beyond 64 bits.

    A few lines of YAML with aliases can describe more values than memory can hold. An aliased value is visited once, and
    counted at each of its positions.

    Raises:
        SpecError: the message names the place.
    """
    # Wrapped in a list, so that a single number is checked too.
    _extent_of([data], [], {})


class _Extent(NamedTuple):
    """The number of values of a container, including itself, and its nesting depth."""

    values: int
    levels: int


Place = tuple[object, object]
"""A container, and its key in its parent container."""


def _extent_of(container: Any, around: list[Place], known: dict[int, _Extent]) -> _Extent:
    values, levels = 1, 0
    for key, part in container.items() if isinstance(container, dict) else enumerate(container):
        path = [*around, (part, key)]
        if isinstance(part, int) and not -INTEGER_LIMIT < part < INTEGER_LIMIT:
            raise SpecError(
                _written(path),
                "must be a number below 2^64",
                f"one of {part.bit_length()} bits",
                "Write a smaller number.",
            )
        if not isinstance(part, dict | list | tuple):
            values += 1
        elif not any(part is each for each, _ in around):
            # The model refuses a container that contains itself, with a better message.
            extent = known.get(id(part))
            if len(path) + (extent.levels if extent else 0) > MAX_NESTING_LEVELS:
                raise SpecError(
                    _written([*path[:7], (None, "…")]),
                    f"must be at most {MAX_NESTING_LEVELS} lists and mappings deep",
                    "more",
                    "Put modules in a row instead of inside one another.",
                )
            if extent is None:
                extent = known[id(part)] = _extent_of(part, path, known)
            values, levels = values + extent.values, max(levels, extent.levels + 1)
        if values > MAX_VALUES:
            raise SpecError(
                "the specification",
                f"must hold at most {MAX_VALUES:,} values, aliases written out",
                "more",
                "Write a repeated module as a power.",
            )
    return _Extent(values, levels)


def _written(path: list[Place]) -> str:
    # The first key is the index in the wrapping list.
    return ".".join(str(key) for _, key in path[1:]) or "the specification"
