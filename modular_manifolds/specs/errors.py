"""One-line errors from pydantic's error details: place, rule, value seen, remedy."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from modular_manifolds.errors import ArgumentError, SpecError
from modular_manifolds.specs.nearest import MAX_NAME_LENGTH, suggestion

WORDS: Final[dict[str, tuple[str, str]]] = {
    "missing": ("must be given", "Add it."),
    "int_type": ("must be a whole number", "Write it without quotes and without a point."),
    "float_type": ("must be a number", "Write it without quotes, such as 0.1."),
    "string_type": ("must be text", "Put it in quotes."),
    "bool_type": ("must be true or false", "Write true or false without quotes."),
    "list_type": ("must be a list", "Write it as [first, second]."),
    "tuple_type": ("must be a list", "Write it as [first, second]."),
    "dict_type": ("must be a mapping", "Write it as key: value."),
    "model_type": ("must be a mapping", "Write it as key: value."),
    "model_attributes_type": ("must be a mapping", "Write it as key: value."),
    "finite_number": ("must be finite", "Write an ordinary number."),
    "greater_than": ("must be greater than {gt:g}", "Choose a larger value."),
    "greater_than_equal": ("must be at least {ge:g}", "Choose a larger value."),
    "less_than": ("must be less than {lt:g}", "Choose a smaller value."),
    "less_than_equal": ("must be at most {le:g}", "Choose a smaller value."),
    "recursion_loop": ("must not contain itself", "Write its parts out."),
    "too_short": ("must hold at least {min_length}", "Add what is missing."),
    "too_long": ("must hold at most {max_length}", "Take some away."),
}
"""Rule and remedy for each error type of pydantic."""


@contextmanager
def in_words(data: object) -> Iterator[None]:
    """Turn a ValidationError about `data` into a SpecError."""
    try:
        yield
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise spec_error(details[0], data) from None


def spec_error(details: ErrorDetails, data: object) -> SpecError:
    """One error of pydantic as a one-line error; `data` decides which parts of its location are keys of the caller."""
    where = ".".join(written_location(details["loc"], data))
    context: dict[str, Any] = details.get("ctx", {})
    kind, seen = details["type"], _short(details["input"])
    match kind:
        case "value_error" if isinstance(inner := context["error"], ArgumentError):
            where = f"{where}.{inner.argument}" if where else inner.argument
            return SpecError(where, inner.rule, inner.seen, inner.remedy)
        case "refused":
            rule, remedy = context["rule"], context["remedy"]
        case "unknown_key":
            key = _clipped(context["key"])
            where = f"{where}.{key}" if where else key
            rule, seen = "must be a known key", repr(key)
            remedy = suggestion(context["key"], context["known"])
        case "union_tag_invalid":
            where = _tagged(where, context)
            rule, seen = "must be a known name", repr(_clipped(context["tag"]))
            remedy = suggestion(context["tag"], _quoted(context["expected_tags"]))
        case "union_tag_not_found":
            where = _tagged(where, context)
            rule, seen, remedy = "must be given", "nothing", "Say which kind is wanted."
        case "literal_error":
            rule = f"must be {context['expected']}"
            remedy = suggestion(str(details["input"]), _quoted(context["expected"]))
        case _:
            rule, remedy = WORDS.get(kind, ("must be valid", details["msg"] + "."))
            rule = rule.format(**context)
            seen = "nothing" if kind == "missing" else seen
    return SpecError(where or "the specification", rule, seen, remedy)


def written_location(location: tuple[int | str, ...], data: object) -> Iterator[str]:
    """The parts of pydantic's location that are keys or indices of `data`, without the tags of unions."""
    at_key = False
    kind_known = False
    for part in location:
        if part in ("[list]", "[mapping]"):
            at_key = True
        elif part == "[key]":
            # The error concerns the previous key, not its value.
            return
        elif not at_key and not kind_known and _names_a_kind(part, data):
            kind_known = True
        else:
            yield str(part)
            data = _step(data, part)
            at_key = kind_known = False


def _names_a_kind(part: int | str, data: object) -> bool:
    if isinstance(data, dict):
        return part in (data.get("type"), data.get("name"))
    return data == part


def _step(data: object, part: int | str) -> object:
    if isinstance(data, dict):
        return data.get(part)
    if isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
        return data[part]
    return None


def _tagged(where: str, context: dict[str, Any]) -> str:
    key = context["discriminator"].strip("'")
    return f"{where}.{key}" if where else key


def _quoted(listed: str) -> list[str]:
    return re.findall(r"'([^']+)'", listed)


def _clipped(name: str) -> str:
    """The name, shortened if it is longer than `MAX_NAME_LENGTH` characters."""
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[:MAX_NAME_LENGTH]}…"


def _short(value: object) -> str:
    return _REPR.repr(value)


_REPR: Final = reprlib.Repr()
_REPR.maxlevel = 2
_REPR.maxstring = 60
