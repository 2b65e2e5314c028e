"""Shares: how one learning rate is split over logical matrices by their masses and responses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

By: TypeAlias = Literal["mass", "measured"]
"""How a learning rate is split."""


def shares_of(
    masses: Sequence[float], responses: Sequence[float | None]
) -> tuple[list[float], list[float]]:
    """The shares `(mass / total mass) / response`, and the responses that they divide by.

    A response that was not measured counts as 1. One of zero says nothing of a size, as that of LoRA's A beside a B of
    zeros: the geometric mean of the positive ones takes its place.
    """
    positive = [each for each in responses if each]
    typical = math.exp(sum(map(math.log, positive)) / len(positive)) if positive else 1.0
    sizes = [1.0 if each is None else each or typical for each in responses]
    total = sum(masses)
    return [mass / total / size for mass, size in zip(masses, sizes, strict=True)], sizes
