"""JSON texts of the files of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping


def as_json(value: object, *, indent: int | None = None) -> str:
    """Data as JSON text; NaN and infinity become null, because JSON lacks them."""
    return json.dumps(_finite_or_none(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite_or_none(value: object) -> object:
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {key: _finite_or_none(each) for key, each in value.items()}
        case list() | tuple():
            return [_finite_or_none(each) for each in value]
        case _:
            return value
