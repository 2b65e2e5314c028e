"""Collectives of a step: a failed one says what the optimiser was waiting for, and the first one compares sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist

Result = TypeVar("Result")

AGREEMENT: Final = "agree on the step. No weight has moved"
GATHERING: Final = "exchange the new weights. Some may have moved: go on from the last checkpoint"


def together(purpose: str, collective: Callable[[], Result]) -> Result:
    """The result of a collective. If it fails, a note on its error says what this process was waiting for.

    The error keeps its type and message, which name a socket or a time and not the optimiser.

    Args:
        purpose: what the processes do together, and what has become of the weights.
        collective: the call.
    """
    if torch.compiler.is_compiling():
        return collective()
    try:
        return collective()
    except RuntimeError as error:
        error.add_note(
            f"SteepestDescent.step() was waiting for the other processes, to {purpose}. "
            "One of them has ended, or has not called step(): read its own error first."
        )
        raise


def have_equal_sizes(size: int, group: Any, device: torch.device) -> bool:
    """Whether a number is the same on all processes of a group. It is read, so an accelerator is waited for."""
    sizes = torch.tensor([size, -size], dtype=torch.int32, device=device)
    together(AGREEMENT, lambda: dist.all_reduce(sizes, op=dist.ReduceOp.MAX, group=group))
    most, least = sizes.tolist()
    return most + least == 0
