"""Shares: how one learning rate is split over logical matrices by their masses and responses."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

By: TypeAlias = Literal["mass", "measured"]
"""How a learning rate is split."""

LEAST_RESPONSE: Final = 1e-4
"""A response below this part of the median is rounding, or a dependence that cancels."""


def shares_of(
    masses: Sequence[float], responses: Sequence[float | None]
) -> tuple[list[float], list[float]]:
    """The shares `(mass / total mass) / response`, and the responses that they divide by.

    A response that was not measured counts as 1. One of next to nothing says nothing of a size, as that of LoRA's A beside a
    B of zeros or of the bias of attention's keys: the median of the others takes its place.
    """
    positive = [each for each in responses if each]
    median = statistics.median(positive) if positive else 1.0
    sizes = [
        1.0 if each is None else each if each > LEAST_RESPONSE * median else median
        for each in responses
    ]
    total = sum(masses)
    return [mass / total / size for mass, size in zip(masses, sizes, strict=True)], sizes
