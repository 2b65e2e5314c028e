"""A row of tokens, seen through windows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Windows:
    """`tokens`, of shape (characters,), seen through windows: `context` inputs and the token after each."""

    tokens: Tensor
    context: int

    def __len__(self) -> int:
        """How many windows cover the part once: every token but the first is a label."""
        return math.ceil((len(self.tokens) - 1) / self.context)

    def draw_order(self, generator: torch.Generator) -> Tensor:
        """The starts of as many random windows as cover the part once."""
        return torch.randint(len(self.tokens) - self.context, (len(self),), generator=generator)

    def take(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and labels, each of shape (windows, context), of the windows that start at `chosen`."""
        places = chosen.unsqueeze(-1) + torch.arange(self.context + 1, device=chosen.device)
        windows = self.tokens[places]
        return windows[:, :-1], windows[:, 1:]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows end to end, then one with what is left: every token but the first is a label once."""
        whole = (len(self.tokens) - 1) // self.context
        for starts in (torch.arange(whole) * self.context).to(self.tokens.device).split(size):
            yield self.take(starts)
        rest = self.tokens[whole * self.context :]
        if len(rest) > 1:
            yield rest[None, :-1], rest[None, 1:]

    def to(self, device: torch.device) -> Windows:
        """The same on `device`."""
        return replace(self, tokens=self.tokens.to(device))
