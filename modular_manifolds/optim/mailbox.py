"""Reports of a device, which the host reads one step later, so that it never waits for the step in progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.optim.agreement import disagreement
from modular_manifolds.optim.bucket import Bucket, rate_too_large
from modular_manifolds.optim.fallback import FallbackWeight
from modular_manifolds.optim.gradients import NONFINITE_REMEDY, gradient_argument


class Mailbox:
    """Copies one set of numbers at a time from a device to the host, asynchronously."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._copied: Any = None

    def post(self, numbers: Tensor) -> None:
        """Queue a copy to the host's memory, without waiting."""
        if type(numbers) is not Tensor:
            return  # A tracer's tensors have no values.
        if numbers.is_cpu:
            self._buffer, self._copied = numbers, None
            return
        if self._buffer is None:
            self._buffer = torch.empty(
                numbers.shape, dtype=numbers.dtype, device="cpu", pin_memory=True
            )
        self._buffer.copy_(numbers, non_blocking=True)
        self._copied = torch.accelerator.current_stream(numbers.device).record_event()

    def collect(self) -> list[float] | None:
        """The numbers of the last `post`; None if it was collected already.

        This waits only if the host is more than one step ahead of the device.
        """
        if self._buffer is None or self._copied is None:
            return None
        self._copied.synchronize()
        self._copied = None
        return self._buffer.tolist()


@dataclass(frozen=True)
class FailedSteps:
    """Earlier steps that one device has cancelled.

    Args:
        nonfinite: names of the weights whose gradients held NaN or infinity.
        rate_too_large: whether a rate tensor was larger than the plans allow.
        count: the number of cancelled steps.
        conflicts: names on which the processes did not agree, see `Agreement`.
    """

    nonfinite: tuple[str, ...]
    rate_too_large: bool
    count: int
    conflicts: tuple[str, ...] = ()


class Report:
    """Counts of failures, and gaps, of all weights on one device. A step writes them in place.

    `counts` holds, for each weight, the number of steps with a gradient that was not finite, then the number of steps with
    too large a rate, then the number of cancelled steps. `gaps` holds the last step's worst gap of each bucket that has
    deeper plans.
    """

    def __init__(
        self,
        device: torch.device,
        buckets: Sequence[Bucket],
        fallback_weights: Sequence[FallbackWeight] = (),
        agreed: Sequence[str] = (),
        names: Sequence[str] | None = None,
    ) -> None:
        self.device = device
        self.buckets = tuple(buckets)
        self.fallback_weights = tuple(fallback_weights)
        stepped = [name for bucket in buckets for name in bucket.names]
        stepped += [each.name for each in fallback_weights]
        self.names = stepped if names is None else list(names)
        """The weights whose gradients are counted; by default those of the report."""
        self.counts = torch.zeros(len(self.names) + 2, dtype=torch.float32, device=device)
        self.nonfinite, self.rate_too_large, self.left_out = self.counts.split(
            [len(self.names), 1, 1]
        )
        """Views of the counts."""
        self.buckets_with_deeper_plans = [bucket for bucket in buckets if bucket.has_deeper_plans]
        self.gaps = torch.zeros(
            len(self.buckets_with_deeper_plans), dtype=torch.float32, device=device
        )
        self.agreed = tuple(agreed)
        """The names on which several processes must agree."""
        self.conflicts = torch.zeros(len(agreed), dtype=torch.float32, device=device)
        self._last_counts = [0.0] * (len(self.names) + 2)
        self._mailbox = Mailbox()

    def post(self) -> None:
        """Send the numbers to the host, which reads them at the next step."""
        self._mailbox.post(torch.cat(self._numbers()))

    def _numbers(self) -> list[Tensor]:
        return [self.counts, self.gaps, *([self.conflicts] if self.agreed else [])]

    def read(self, *, wait: bool = False) -> FailedSteps | None:
        """The steps that were cancelled since the last call; None if there are none. If none, the gaps adapt the plans.

        Args:
            wait: wait for the device, and read the newest numbers.
        """
        if wait or self.device.type == "cpu":
            if type(self.counts) is not Tensor:
                return None
            numbers = [each for tensor in self._numbers() for each in tensor.tolist()]
        else:
            numbers = self._mailbox.collect()
        if numbers is None:
            return None
        counts, gaps = numbers[: len(self._last_counts)], numbers[len(self._last_counts) :]
        gaps, conflicts = gaps[: len(self.gaps)], gaps[len(self.gaps) :]
        increments = [now - before for now, before in zip(counts, self._last_counts, strict=True)]
        self._last_counts = counts
        *nonfinite, rate_too_large, left_out = increments
        if left_out:
            names = [name for name, count in zip(self.names, nonfinite, strict=True) if count]
            differing = [name for name, each in zip(self.agreed, conflicts, strict=True) if each]
            return FailedSteps(tuple(names), bool(rate_too_large), int(left_out), tuple(differing))
        for bucket, gap in zip(self.buckets_with_deeper_plans, gaps, strict=True):
            bucket.adapt_plan(gap)
        return None


def error_of(
    failed: Sequence[FailedSteps], buckets: Sequence[Bucket], groups: Sequence[Mapping[str, Any]]
) -> ArgumentError:
    """The error of cancelled steps: processes that differ, too large a rate, or the first gradient that was not finite."""
    conflicts = [name for each in failed for name in each.conflicts]
    if conflicts:
        return disagreement(conflicts)
    if any(each.rate_too_large for each in failed):
        bucket = buckets[0]
        return rate_too_large(
            bucket.names[0],
            bucket.largest_rate(groups[bucket.group]["lr"]),
            seen="another value in an earlier step, which moved nothing",
        )
    names = [name for each in failed for name in each.nonfinite]
    return NonFiniteError(
        gradient_argument(names[0]),
        "must be finite",
        "NaN or infinity in an earlier step, which moved nothing",
        NONFINITE_REMEDY,
    )
