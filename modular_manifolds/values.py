"""Conversion of frozen dataclasses to JSON values: the class's name and the fields."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def name_of(kind: type) -> str:
    """The class's name in snake case: `BalancedRows` is `balanced_rows`, and `RMSOperator` is `rms_operator`."""
    return _WORD.sub("_", kind.__name__).lower()


def values_of(item: Any) -> dict[str, Any]:
    """The class's name and the fields: `{"name": "spectral_ball", "radius": 1.0}` for `SpectralBall(radius=1.0)`.

    A field that JSON cannot hold is written as its `repr`.
    """
    values: dict[str, Any] = {"name": name_of(type(item))}
    for field in fields(item):
        values[field.name] = _as_json(getattr(item, field.name))
    return values


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_as_json(each) for each in value]
    return repr(value)
