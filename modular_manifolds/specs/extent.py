"""How large the data of a specification may be: refused before anything is made of them."""

from __future__ import annotations

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
    # In a list of its own, so that data which are a single number are looked at too.
    _extent_of([data], [], {})


class _Extent(NamedTuple):
    """How many values a container holds, itself among them, and how many containers inside one another."""

    values: int
    levels: int


Place = tuple[object, object]
"""A container, and the key that leads from the container around it to it."""


def _extent_of(container: Any, around: list[Place], known: dict[int, _Extent]) -> _Extent:
    values, levels = 1, 0
    for key, part in container.items() if isinstance(container, dict) else enumerate(container):
        path = [*around, (part, key)]
        if isinstance(part, int) and not -LARGEST < part < LARGEST:
            raise SpecError(
                _written(path),
                "must be a number below 2^64",
                f"one of {part.bit_length()} bits",
                "Write a smaller number.",
            )
        if not isinstance(part, dict | list | tuple):
            values += 1
        elif not any(part is each for each, _ in around):
            # A container that holds itself is refused by the model, which has the right words.
            extent = known.get(id(part))
            if len(path) + (extent.levels if extent else 0) > MOST_LEVELS:
                raise SpecError(
                    _written([*path[:7], (None, "…")]),
                    f"must be at most {MOST_LEVELS} lists and mappings deep",
                    "more",
                    "Put modules in a row instead of inside one another.",
                )
            if extent is None:
                extent = known[id(part)] = _extent_of(part, path, known)
            values, levels = values + extent.values, max(levels, extent.levels + 1)
        if values > MOST_VALUES:
            raise SpecError(
                "the specification",
                f"must hold at most {MOST_VALUES:,} values, aliases written out",
                "more",
                "Write a repeated module as a power.",
            )
    return _Extent(values, levels)


def _written(path: list[Place]) -> str:
    # The first key is the place in the list around the data.
    return ".".join(str(key) for _, key in path[1:]) or "the specification"
