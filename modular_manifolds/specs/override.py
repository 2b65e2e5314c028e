"""Assignments such as `optimizer.lr=0.3`, applied to the data of a specification."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modular_manifolds.errors import SpecError
from modular_manifolds.specs.nearest import suggestion
from modular_manifolds.specs.text import parse_yaml

KINDS = ("name", "type")
"""The keys that decide the other keys of a mapping."""


@dataclass(frozen=True)
class Assignment:
    """A dotted key and a value."""

    key: str
    value: Any

    @property
    def parts(self) -> list[str]:
        return self.key.split(".")

    @property
    def comes_first(self) -> bool:
        """Whether it assigns a whole section or a section's name, which decides the other keys."""
        return len(self.parts) == 1 or self.parts[1:] == ["name"]

    def below(self, section: str) -> bool:
        """Whether it changes `section` or a key inside it."""
        return self.parts[0] == section


def parse_assignment(text: str) -> Assignment:
    """Parse a text such as `optimizer.lr=0.3`; the value is YAML.

    Raises:
        SpecError: there is no `=`, no key, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise SpecError(
            "an assignment", "must read key=value", repr(text), "Write it as optimizer.lr=0.3."
        )
    return Assignment(key, parse_yaml(value, name=f"the value of {key}"))


def assign_(data: dict[str, Any], assignments: Iterable[Assignment]) -> None:
    """Apply the assignments to `data`, first those to `name` and `type`.

    A new `name` or `type` removes all other keys of its mapping.

    Raises:
        SpecError: a key refers to a missing part.
    """
    for each in sorted(assignments, key=lambda each: each.parts[-1] not in KINDS):
        *through, last = each.parts
        place: Any = data
        for depth, part in enumerate(through):
            place = place[_key(place, part, ".".join(through[: depth + 1]))]
        if isinstance(place, list):
            place[_key(place, last, each.key)] = each.value
        elif not isinstance(place, dict):
            raise _leads_nowhere(each.key, place)
        else:
            if last in KINDS and isinstance(place.get(last), str) and place[last] != each.value:
                place.clear()
            place[last] = each.value


def _key(place: Any, part: str, where: str) -> Any:
    """`part` as an existing key or index of `place`."""
    if isinstance(place, list):
        if part.isdecimal() and int(part) < len(place):
            return int(part)
        raise SpecError(where, f"must be an index below {len(place)}", repr(part), "Count from 0.")
    if not isinstance(place, dict):
        raise _leads_nowhere(where, place)
    if part not in place:
        raise SpecError(where, "must be a known key", repr(part), suggestion(part, place))
    return part


def _leads_nowhere(where: str, place: Any) -> SpecError:
    return SpecError(where, "must lead through mappings and lists", repr(place), "Shorten the key.")
