"""The bond that multiplies by a factor which the learning rate does not count."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modular_manifolds.composition.rules import check_factor
from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.leaf import Bond


class Amplify(Bond):
    """`factor · x`; sensitivity |factor| in rms, l2, l1 and linf.

    It stands at the end of a branch whose outputs are typically smaller than its bound allows, because ReLU halves
    the power and averages over positions shrink. The factor makes up for that: the branch together with it stretches
    typical inputs by about 1. So its rate scale, by which the budget divides the learning rate, is `typical`. The
    sensitivity, certificates, and the budget's bound on a step take the factor. `c * f` counts |c| in both.

    Args:
        factor: finite and not 0.
        typical: the rate scale: the slope that the learning rate is meant for.

    Raises:
        ArgumentError: `factor` or `typical` is out of range.
    """

    def __init__(self, factor: float, *, typical: float = 1.0) -> None:
        check_factor(factor, argument="Amplify(factor)")
        if not (isinstance(typical, int | float) and math.isfinite(typical) and typical > 0):
            raise ArgumentError(
                "Amplify(typical)",
                "must be finite and positive",
                repr(typical),
                "Pass the slope for which the learning rate is meant, or leave it at 1.",
            )
        super().__init__(sensitivity=abs(float(factor)), rate_scale=float(typical))
        self.factor = float(factor)
        self.typical = float(typical)

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
