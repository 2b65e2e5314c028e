"""Dropout, with the Lipschitz bound of the current mode."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from modular_manifolds.arguments import Range, check_number
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.tree import Tree
from modular_manifolds.nn.leaf import Bond

PROBABILITIES = Range("must be at least 0 and below 1", lambda p: 0 <= p < 1)


class Dropout(Bond):
    """`x · mask/(1 − p)` in training, each entry kept with probability 1 − p; x in evaluation.

    Sensitivity in rms, l2, l1 and linf: `1/(1 − p)` in training, if both inputs have the same mask, and 1 in
    evaluation. The tree, and with it every bound, is that of the current mode: call `eval()` before you compute the
    bounds of the network without masks.

    Raises:
        ArgumentError: `p` is not in [0, 1).
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        remedy = "Pass the fraction of the entries to drop."
        self.p: float = check_number(p, PROBABILITIES, argument="Dropout(p)", remedy=remedy)

    @property
    def factor(self) -> float:
        """The largest factor on an entry in the current mode."""
        return 1 / (1 - self.p) if self.training else 1.0

    def lipschitz_within(self, radius: float) -> float:
        del radius
        return self.factor

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        # The factor is rounded, and so is the product.
        return 2 * torch.finfo(dtype).eps * self.factor * radius if self.training else 0.0

    def tree(self, path: str = "") -> Tree:
        own = super().tree(path)
        assert isinstance(own, Leaf)
        slopes = replace(own.signature, sensitivity=self.factor, rate_scale=self.factor)
        return replace(own, signature=slopes)

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.p, self.training)
