"""A frozen dataclass as values that JSON can hold: its name and its fields."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def name_of(kind: type) -> str:
    """The class's name in small letters: `BalancedRows` is `balanced_rows`, and `RMSOperator` is `rms_operator`."""
    return _WORD.sub("_", kind.__name__).lower()


def values_of(of: Any) -> dict[str, Any]:
    """`{"name": "spectral_ball", "radius": 1.0}` for `SpectralBall(radius=1.0)`: the class's name and its fields.

    A field that JSON cannot hold is given by its `repr`.
    """
    found: dict[str, Any] = {"name": name_of(type(of))}
    for field in fields(of):
        found[field.name] = _plain(getattr(of, field.name))
    return found


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return repr(value)
