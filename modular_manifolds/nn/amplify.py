"""The bond that multiplies by a factor that the learning-rate split ignores."""

from __future__ import annotations

import torch
from torch import Tensor

from modular_manifolds.arguments import POSITIVE, check_number
from modular_manifolds.composition.rules import check_factor
from modular_manifolds.nn.leaf import Bond


class Amplify(Bond):
    """`factor · x`; sensitivity |factor| in rms, l2, l1 and linf.

    It is the last module of a branch whose outputs are typically smaller than its bound: ReLU halves the power, and
    averages over positions shrink. With the factor the branch stretches typical inputs by about 1. So the rate scale,
    by which the budget divides the learning rate, is `typical`. The sensitivity, certificates, and the budget's bound
    on a step use the factor. In `c * f`, |c| enters both.

    Args:
        factor: finite and not 0.
        typical: the rate scale: the typical slope of the whole branch, for which the learning rate is meant.

    Raises:
        ArgumentError: `factor` or `typical` is out of range.
    """

    def __init__(self, factor: float, *, typical: float = 1.0) -> None:
        factor = check_factor(factor, argument="Amplify(factor)")
        remedy = "Pass the slope for which the learning rate is meant, or leave it at 1."
        typical = check_number(typical, POSITIVE, argument="Amplify(typical)", remedy=remedy)
        super().__init__(sensitivity=abs(factor), rate_scale=typical)
        self.factor = factor
        self.typical = typical

    def lipschitz_within(self, radius: float) -> float:
        del radius
        return abs(self.factor)

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        # The factor is rounded to the dtype, and so is the product.
        return 2 * torch.finfo(dtype).eps * abs(self.factor) * radius

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x
