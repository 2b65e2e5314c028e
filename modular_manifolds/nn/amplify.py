"""The bond that multiplies by more than the learning rate is meant for."""

from __future__ import annotations

import torch
from torch import Tensor

from modular_manifolds.arguments import POSITIVE, check_number
from modular_manifolds.composition.rules import check_factor
from modular_manifolds.nn.leaf import Bond


class Amplify(Bond):
    """`factor · x`; slope |factor| in rms, l2, l1 and linf.

    For the end of a branch that by itself gives a fraction of what it may: ReLU halves the power, averages over
    positions shrink. A factor makes up for that, and the branch together with it stretches typical inputs by
    about 1. So the sensitivity, by which the budget divides the learning rate, is `typical`. Certificates, and
    the budget's bound on a step, take the factor. `c * f` counts c in both.

    Args:
        factor: finite and not 0.
        typical: the slope for which the learning rate is meant.

    Raises:
        ArgumentError: `factor` or `typical` is out of range.
    """

    def __init__(self, factor: float, *, typical: float = 1.0) -> None:
        factor = check_factor(factor, argument="Amplify(factor)")
        remedy = "Pass the slope for which the learning rate is meant, or leave it at 1."
        typical = check_number(typical, POSITIVE, argument="Amplify(typical)", remedy=remedy)
        super().__init__(sensitivity=typical)
        self.factor = factor
        self.typical = typical

    def arguments(self) -> dict[str, object]:
        return {"factor": self.factor, "typical": self.typical}

    def lipschitz_within(self, radius: float) -> float:
        del radius
        return abs(self.factor)

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        # The factor is rounded to the dtype, and so is the product.
        return 2 * torch.finfo(dtype).eps * abs(self.factor) * radius

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x
