"""Checks of the real and whole numbers that callers pass."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final

from modular_manifolds.errors import ArgumentError


@dataclass(frozen=True)
class Range:
    """The values that a numeric argument may take.

    Args:
        rule: what must hold, starting with a verb.
        contains: whether a float is in the range; false for NaN.
    """

    rule: str
    contains: Callable[[float], bool]


POSITIVE: Final = Range("must be finite and positive", lambda x: 0 < x < math.inf)
NOT_NEGATIVE: Final = Range("must be finite and at least 0", lambda x: 0 <= x < math.inf)
NOT_ZERO: Final = Range("must be finite and not 0", lambda x: x != 0 and math.isfinite(x))


def check_number(value: Any, allowed: Range, *, argument: str, remedy: str) -> float:
    """Return a real number as a Python float, or refuse it.

    Python's numbers, numpy's numbers and fractions are accepted. Booleans are not numbers here.

    Raises:
        ArgumentError: `value` is not a number, or not in the range `allowed`.
    """
    number = value if type(value) is float else _as_float(value)
    if not allowed.contains(number):
        raise ArgumentError(argument, allowed.rule, repr(value), remedy)
    return number


def check_count(value: Any, *, argument: str, what: str = "features", least: int = 1) -> int:
    """Return a whole number as a Python int, or refuse it.

    Everything that Python accepts as an index is a whole number: Python's, numpy's, a torch tensor of one. Booleans
    are not.

    Args:
        what: the things that are counted, for the message.
        least: the smallest number allowed.

    Raises:
        ArgumentError: `value` is not a whole number, or below `least`.
    """
    number = as_whole_number(value)
    if number is None or number < least:
        rule = "a positive whole number" if least == 1 else f"a whole number of at least {least}"
        raise ArgumentError(argument, f"must be {rule}", repr(value), f"Pass the number of {what}.")
    return number


def check_unlike(values: Sequence[str], *, argument: str, what: str) -> None:
    """Refuse equal values, of which all but one would have no effect.

    Args:
        what: the kind of the values, for the message.

    Raises:
        ArgumentError: two values are equal.
    """
    for place, each in enumerate(values):
        if each in values[:place]:
            raise ArgumentError(
                argument, f"must have each {what} once", f"{each!r} twice", "Leave one out."
            )


def as_whole_number(value: Any) -> int | None:
    """`value` as a Python int if it is a whole number; None otherwise."""
    if type(value) is int:
        return value
    # Python accepts a tensor of one boolean as an index.
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        return None
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        # A tensor without a value raises RuntimeError.
        return None


def is_number(value: Any) -> bool:
    """Whether `value` is a real number and not a boolean."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _as_float(value: Any) -> float:
    """`value` as a Python float if it is a real number; otherwise NaN, which is in no range."""
    if not is_number(value):
        count = as_whole_number(value)
        if count is None:
            return math.nan
        value = count
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
