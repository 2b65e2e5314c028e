"""The scaling of a network's input, so that radii can be given in the units of the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class InputScale:
    """`x = (u − mean)/std`, entry by entry: x is the network's input, and u the data in the unit of radii.

    Args:
        mean: the values that are subtracted, in a shape that broadcasts with one example.
        std: the values that are divided by, positive, in such a shape.
        unit: the unit of u, for texts such as "a radius in …".
        slack: the relative error of the data's scaling: 1e-6 covers float32's rounding; 0 if the scaling is exact.

    Raises:
        ArgumentError: an entry of `std` is not positive and finite, or one of `mean` not finite.
    """

    mean: Tensor
    std: Tensor
    unit: str
    slack: float = 1e-6

    def __post_init__(self) -> None:
        if not bool((torch.isfinite(self.std) & (self.std > 0)).all()):
            raise ArgumentError(
                "InputScale(std)",
                "must be positive and finite",
                self.std.tolist(),
                "Leave out constant inputs, or divide them by 1.",
            )
        if not bool(torch.isfinite(self.mean).all()):
            raise ArgumentError(
                "InputScale(mean)", "must be finite", self.mean.tolist(), "Pass the data's mean."
            )

    @property
    def shortest(self) -> float:
        """A lower bound on `‖u − u'‖₂ / ‖x − x'‖₂`: the smallest std minus the slack."""
        return float(self.std.double().amin()) * (1 - self.slack)

    def seen(self, u: Tensor) -> Tensor:
        """x, the network's input, from u."""
        return (u - self.mean.to(u)) / self.std.to(u)

    def undone(self, x: Tensor) -> Tensor:
        """u, the data in the unit of radii, from x."""
        return x * self.std.to(x) + self.mean.to(x)


def unscaled() -> InputScale:
    """The identity: radii are in units of the network's input."""
    mean, std = torch.zeros((), device="cpu"), torch.ones((), device="cpu")
    return InputScale(mean, std, "units of the network's input", slack=0.0)
