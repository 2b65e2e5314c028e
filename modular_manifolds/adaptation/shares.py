"""Shares: the split of one learning rate over logical matrices by their masses and responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

By: TypeAlias = Literal["mass", "measured"]
"""How a learning rate is split."""

MATRICES_AT_FULL_RESPONSE: Final = 10
"""The number of matrices up to which a smaller response than 1 counts as 1; with n more, it counts as at least 10/n.

A small response would not bound a step: queries and keys hardly move the outputs of a fresh model, whose attention is uniform,
and a step as long as that allows would be one across their whole manifold. The bias of attention's keys moves no output at all,
and LoRA's A none beside a B of zeros. So no weight takes a longer step than its part of the mass times the rate, in its own norm,
in which its manifold has size 1.

The part of a matrix falls with the number of matrices, and in a deep residual network its response does too. There the length
stays that of a network of 10 matrices, as long as the responses allow it: docs/arena.md has the losses by depth.
"""


def response_min(matrices: int) -> float:
    """The smallest response that counts, in a model of so many hidden matrices."""
    return min(1.0, MATRICES_AT_FULL_RESPONSE / max(matrices, 1))


def shares_of(
    masses: Sequence[float], responses: Sequence[float | None], *, matrices: int
) -> tuple[list[float], list[float]]:
    """The shares `(mass / total mass) / max(response, min(1, 10/n))`, and these denominators.

    A response that was not measured counts as 1.

    Args:
        masses: the mass of each row.
        responses: the response of each row; None if it was not measured.
        matrices: n, the number of hidden matrices.
    """
    smallest = response_min(matrices)
    sizes = [1.0 if each is None else max(each, smallest) for each in responses]
    total = sum(masses)
    return [mass / total / size for mass, size in zip(masses, sizes, strict=True)], sizes
