"""Checks of numbers that callers pass: one for real numbers, one for whole numbers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final

from modular_manifolds.errors import ArgumentError


@dataclass(frozen=True)
class Range:
    """The numbers that an argument may be.

    Args:
        rule: what must hold, starting with a verb.
        holds: whether a float is in the range; false for NaN.
    """

    rule: str
    holds: Callable[[float], bool]


POSITIVE: Final = Range("must be finite and positive", lambda x: 0 < x < math.inf)
NOT_NEGATIVE: Final = Range("must be finite and at least 0", lambda x: 0 <= x < math.inf)
NOT_ZERO: Final = Range("must be finite and not 0", lambda x: x != 0 and math.isfinite(x))


def check_number(value: Any, within: Range, *, argument: str, remedy: str) -> float:
    """Give back a real number as a Python float, or refuse it.

    Every real number is taken: Python's, numpy's, a fraction. Truth values are not numbers here.

    Raises:
        ArgumentError: `value` is not a number, or not in the range `within`.
    """
    number = value if type(value) is float else _as_float(value)
    if not within.holds(number):
        raise ArgumentError(argument, within.rule, repr(value), remedy)
    return number


def check_count(value: Any, *, argument: str, what: str = "features", least: int = 1) -> int:
    """Give back a whole number as a Python int, or refuse it.

    Everything that Python takes as an index is a whole number: Python's, numpy's, a torch tensor of one. Truth
    values are not.

    Raises:
        ArgumentError: `value` is not a whole number, or below `least`.
    """
    number = whole(value)
    if number is None or number < least:
        rule = "a positive whole number" if least == 1 else f"a whole number of at least {least}"
        raise ArgumentError(argument, f"must be {rule}", repr(value), f"Pass the number of {what}.")
    return number


def whole(value: Any) -> int | None:
    """A whole number as a Python int; None for anything else."""
    if type(value) is int:
        return value
    # A tensor of truth values is an index to Python.
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        return None
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        # A tensor without a value raises RuntimeError.
        return None


def is_number(value: Any) -> bool:
    """Whether `value` is a real number and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _as_float(value: Any) -> float:
    """A real number as a Python float; NaN, which is in no range, for anything else."""
    if not is_number(value):
        count = whole(value)
        if count is None:
            return math.nan
        value = count
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
