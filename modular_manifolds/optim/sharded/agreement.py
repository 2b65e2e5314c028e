"""Agreement over shards: one small reduction tells every process whether the step is taken, and which units it reaches."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.optim.agreement import DESCRIPTION, EARLY, compare_sizes, disagreement
from modular_manifolds.optim.collectives import AGREEMENT, together
from modular_manifolds.optim.gradients import NONFINITE_REMEDY, gradient_argument


@dataclass(frozen=True)
class Agreed:
    """The maxima over all processes.

    Args:
        cancelled: whether a process refuses the step for another reason than its gradients, shape (1,).
        units: `max |G|` of each unit; infinite if an entry is NaN.
        weights: `max |G|` of each weight.
        conflicts: for each name, for the description, and for early messages if there are any, whether the processes differ.
    """

    cancelled: Tensor
    units: Tensor
    weights: Tensor
    conflicts: Tensor


class ShardedAgreement:
    """The flags of a step, reduced to their maxima over all processes that hold a shard.

    There is one number for each unit whose entries lie in several shards, and one for each other weight; then for each
    weight whether it is stepped and the negative of that, and a checksum of the description and its negative. The number
    of flags is fixed, and does not depend on data; the processes compare it before the first reduction.

    If messages may leave before the step, two more numbers follow, see `Overlap.complete`.

    Args:
        group: the process group.
        names: all weights, in an order that is the same on every process.
        counts: the number of units of each weight.
        description: whatever has to be the same on every process.
        dtype: float32, or float64 if a weight needs it.
        device: the device of the weights.
        overlaps: whether messages may leave before the step.
    """

    def __init__(
        self,
        group: Any,
        names: Sequence[str],
        counts: Sequence[int],
        description: str,
        dtype: torch.dtype,
        device: torch.device,
        *,
        overlaps: bool = False,
    ) -> None:
        self._group, self._dtype, self._device = group, dtype, device
        self._weights, early = len(names), int(overlaps)
        self.names = (*names, DESCRIPTION, *([EARLY] if overlaps else []))
        self._sizes = [1, sum(counts), len(names) + 1, early, len(names) + 1, early]
        # 24 bits are exact in float32.
        self._checksum = zlib.crc32(description.encode()) >> 8
        self._segments = torch.repeat_interleave(
            torch.arange(len(names)), torch.tensor(counts, dtype=torch.int64)
        ).to(device)
        self._has_equal_sizes = False
        self._followed: tuple[bool, ...] | None = None
        self._stepped = torch.empty(0)

    def spread(self, flags: tuple[bool, ...]) -> Tensor:
        """One flag for each weight as one for each unit."""
        return torch.tensor(flags, device=self._device)[self._segments]

    @property
    def bytes_per_step(self) -> int:
        """The bytes of the flags."""
        return sum(self._sizes) * self._dtype.itemsize

    def reduce(
        self,
        cancelled: Tensor,
        units: Tensor,
        stepped: tuple[bool, ...],
        early: tuple[Tensor, Tensor] | None = None,
    ) -> Agreed:
        """The maxima over all processes. No number is read, but that of the first comparison.

        Args:
            cancelled: whether this process refuses the step, shape (1,).
            units: `max |G|` of each unit over the shards of this process.
            stepped: whether this process steps each weight.
            early: the two numbers of early messages, each of shape (1,); None without them.
        """
        if stepped != self._followed:
            present = [float(each) for each in stepped]
            self._stepped = torch.tensor(
                [*present, self._checksum], dtype=self._dtype, device=self._device
            )
            self._followed = stepped
        # A maximum need not keep NaN.
        units = torch.where(torch.isnan(units), math.inf, units)
        above, below = ([], []) if early is None else ([early[0]], [early[1]])
        flags = torch.cat(
            (cancelled.to(self._dtype), units, self._stepped, *above, -self._stepped, *below)
        )
        self._has_equal_sizes = self._has_equal_sizes or compare_sizes(flags, self._group)
        together(AGREEMENT, lambda: dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self._group))
        cancelled, units, *both = flags.split(self._sizes)
        weights = units.new_zeros(self._weights)
        weights = weights.scatter_reduce(0, self._segments, units, "amax")
        most, least = torch.cat(both[:2]), torch.cat(both[2:])
        return Agreed(cancelled, units, weights, (most + least) != 0)

    def error(self, agreed: Agreed, own: Tensor) -> ArgumentError | None:
        """The error that stops the step on every process; None if it is taken. It reads the numbers.

        Args:
            agreed: the maxima.
            own: `max |G|` of each unit over the shards of this process.
        """
        conflicts = zip(self.names, agreed.conflicts.tolist(), strict=True)
        differing = [name for name, differs in conflicts if differs]
        if differing:
            return disagreement(differing)
        if bool(agreed.cancelled.any()):
            return rate_error()
        for index, largest in enumerate(agreed.weights.tolist()):
            if math.isfinite(largest):
                continue
            here = own[self._segments == index]
            seen = "NaN or infinity on another process"
            if not bool(torch.isfinite(here).all()):
                seen = "NaN" if bool(torch.isnan(here).any()) else "infinity"
            argument = gradient_argument(self.names[index])
            return NonFiniteError(argument, "must be finite", seen, NONFINITE_REMEDY)
        return None


def rate_error() -> ArgumentError:
    """The error of a rate that another process refuses."""
    return ArgumentError(
        "lr",
        "must be within the limits of all processes",
        "a tensor above the limit of a weight of another process",
        "Build the optimizer with the largest learning rate of the schedule, or pass lr as a float.",
    )
