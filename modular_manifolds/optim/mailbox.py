"""Numbers of a device that the host reads one step later, so that it never waits for the step that it has just queued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.optim.bucket import Bucket
from modular_manifolds.optim.fallback import Plain


class Mailbox:
    """One letter at a time from a device to the host."""

    def __init__(self) -> None:
        self._letter: Tensor | None = None
        self._sent: Any = None

    def post(self, numbers: Tensor) -> None:
        """Queue a copy to the host's memory. Nothing is waited for."""
        if type(numbers) is not Tensor:
            return  # Tensors of a tracer have no numbers.
        if numbers.is_cpu:
            self._letter, self._sent = numbers, None
            return
        if self._letter is None:
            self._letter = torch.empty(
                numbers.shape, dtype=numbers.dtype, device="cpu", pin_memory=True
            )
        self._letter.copy_(numbers, non_blocking=True)
        self._sent = torch.accelerator.current_stream(numbers.device).record_event()

    def collect(self) -> list[float] | None:
        """The numbers of the last post; None if there are none.

        The device finished them long ago, unless the host is more than one step ahead of it.
        """
        if self._letter is None or self._sent is None:
            return None
        self._sent.synchronize()
        self._sent = None
        return self._letter.tolist()


@dataclass(frozen=True)
class News:
    """The host's news of earlier steps.

    Args:
        nonfinite: the weights whose gradients held NaN or infinity.
        too_long: whether a rate, as a tensor, was larger than the plans allow.
        left_out: how many steps were left out.
    """

    nonfinite: tuple[str, ...]
    too_long: bool
    left_out: int


class Report:
    """Counts and gaps of the buckets, and of the weights that AdamW steps, on one device. A step writes them in place, and only sums are kept.

    `counts` says for each weight in how many steps its gradient was not finite, then how many steps had a rate beyond
    the plans, and how many steps were left out; `gaps` is the worst gap, in the last step, of each bucket that has deeper
    plans.
    """

    def __init__(
        self, device: torch.device, buckets: Sequence[Bucket], plain: Sequence[Plain] = ()
    ) -> None:
        self.device = device
        self.buckets = tuple(buckets)
        self.plain = tuple(plain)
        self.names = [name for bucket in buckets for name in bucket.names]
        self.names += [each.name for each in plain]
        self.counts = torch.zeros(len(self.names) + 2, dtype=torch.float32, device=device)
        self.nonfinite, self.too_long, self.left_out = self.counts.split([len(self.names), 1, 1])
        """Views of the counts."""
        self.deepened = [bucket for bucket in buckets if bucket.has_deeper_plans]
        self.gaps = torch.zeros(len(self.deepened), dtype=torch.float32, device=device)
        self._heard = [0.0] * (len(self.names) + 2)
        self._mailbox = Mailbox()

    def post(self) -> None:
        """Send the numbers to the host, which reads them at the next step."""
        self._mailbox.post(torch.cat((self.counts, self.gaps)))

    def hear(self, *, wait: bool = False) -> News | None:
        """The news since the last call; None if there is none. Gaps choose the plans of the next steps.

        Args:
            wait: read the numbers as they are now, and wait for the device.
        """
        if wait or self.device.type == "cpu":
            if type(self.counts) is not Tensor:
                return None
            numbers = [*self.counts.tolist(), *self.gaps.tolist()]
        else:
            numbers = self._mailbox.collect()
        if numbers is None:
            return None
        counts, gaps = numbers[: len(self._heard)], numbers[len(self._heard) :]
        more = [now - before for now, before in zip(counts, self._heard, strict=True)]
        self._heard = counts
        *nonfinite, too_long, left_out = more
        if left_out:
            names = [name for name, count in zip(self.names, nonfinite, strict=True) if count]
            return News(tuple(names), bool(too_long), int(left_out))
        for bucket, gap in zip(self.deepened, gaps, strict=True):
            bucket.hear_gap(gap)
        return None
