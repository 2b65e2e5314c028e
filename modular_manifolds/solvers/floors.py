"""The smallest singular values that a plan treats as nonzero, for a wanted gap."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch


class Promise(NamedTuple):
    """The accuracy, the gap and the floor that polynomials can be asked for.

    Args:
        accuracy: of the singular values above the floor.
        wanted: the gap.
        lowest: the lowest floor.
    """

    accuracy: float
    wanted: float
    lowest: float


def promised(tolerance: float | None, dtype: torch.dtype, *, half: bool) -> Promise:
    """The promise for a tolerance of the gap. Nothing below rounding can be asked for."""
    eps = torch.finfo(dtype).eps
    wanted = max(tolerance or 0.0, 16 * eps)
    if half:
        return Promise(wanted / 2, wanted, wanted / 15)
    return Promise(math.sqrt(wanted / 12), wanted, min(100 * eps, wanted))


def lower_floor(floor: float, lowest: float, gap: float | None, tolerance: float | None) -> float:
    """The floor of the plan after one with this floor and gap: what small singular values may be worth is proportional to it."""
    ratio = 0.0 if gap is None or not tolerance else 2 * gap / tolerance
    return max(floor / max(ratio, MIN_DEEPER_RATIO), lowest)


MIN_DEEPER_RATIO = 4.0
"""How many times lower the floor of a deeper plan is, at least. It starts anew, so it should not be the last but one."""
