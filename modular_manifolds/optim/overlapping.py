"""The optimiser's argument `overlap`: after how many backward passes gradients leave for their owners."""

from __future__ import annotations

from typing import Any

from modular_manifolds.errors import ArgumentError


def passes_of(overlap: Any, *, capturable: bool) -> int:
    """The number of backward passes of a step that sends messages early; 0 if the step sends them.

    Raises:
        ArgumentError: `overlap` is neither a bool nor a count, or the step may be captured.
    """
    if not isinstance(overlap, int) or overlap < 0:
        raise ArgumentError(
            "SteepestDescent(overlap)",
            "must be True, False, or the number of backward passes of a step",
            repr(overlap),
            "Pass overlap=True if each step has one backward pass.",
        )
    if overlap and capturable:
        raise ArgumentError(
            "SteepestDescent(overlap)",
            "must be False if the step may be captured, because hooks do not run in a graph",
            f"overlap={overlap!r} with capturable=True",
            "Leave one of them out.",
        )
    return int(overlap)


def nothing_to_overlap(seen: str) -> ArgumentError:
    """The error of an optimiser that sends no gradients."""
    return ArgumentError(
        "SteepestDescent(overlap)",
        "needs sharded weights that owners gather, because nothing else is sent after a backward pass",
        seen,
        "Leave it out.",
    )
