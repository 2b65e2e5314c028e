"""Shares: the split of one learning rate over logical matrices by their masses and responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

By: TypeAlias = Literal["mass", "measured"]
"""How a learning rate is split."""

LEAST_RESPONSE: Final = 1.0
"""No weight takes a longer step than its part of the mass times the rate, in its own norm: its manifold has size 1 there.

A smaller response would not bound a step: queries and keys hardly move the outputs of a fresh model, whose attention is
uniform, and a step as long as that allows would be one across their whole manifold. The bias of attention's keys moves no
output at all, and LoRA's A none beside a B of zeros.
"""


def shares_of(
    masses: Sequence[float], responses: Sequence[float | None]
) -> tuple[list[float], list[float]]:
    """The shares `(mass / total mass) / max(response, 1)`, and these denominators.

    A response that was not measured counts as 1.
    """
    sizes = [1.0 if each is None else max(each, LEAST_RESPONSE) for each in responses]
    total = sum(masses)
    return [mass / total / size for mass, size in zip(masses, sizes, strict=True)], sizes
