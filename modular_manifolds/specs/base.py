"""The rules of every part of a specification: frozen, typed, and no key that is not known."""

from __future__ import annotations

from numbers import Integral
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from modular_manifolds.arguments import is_number

S = TypeVar("S", bound=BaseModel)


class Spec(BaseModel):
    """A frozen part of a specification; a key that it does not have is refused, as are NaN and infinity."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        # extra="forbid" would refuse it too, but does not say which keys there are.
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise PydanticCustomError(
                        "unknown_key",
                        "unknown key {key}",
                        {"key": str(key), "known": list(cls.model_fields)},
                    )
            return {key: _plain(value) for key, value in data.items()}
        return data


def with_defaults(spec: S, **values: Any) -> S:
    """A copy with other values in fields that nobody has set; they still count as not set."""
    copy = spec.model_copy()
    vars(copy).update(
        {key: value for key, value in values.items() if key not in spec.model_fields_set}
    )
    return copy


def _plain(value: Any) -> Any:
    """Numbers of other kinds, such as numpy's, as Python's, also in a list; anything else as it is."""
    if type(value) is list:
        return [_plain(each) for each in value]
    if type(value) is tuple:
        return tuple(_plain(each) for each in value)
    if type(value) in (int, float) or not is_number(value):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def refused(rule: str, remedy: str) -> PydanticCustomError:
    """The error that a validator raises for a value that breaks `rule`, in this library's words."""
    return PydanticCustomError("refused", "{rule}", {"rule": rule, "remedy": remedy})
