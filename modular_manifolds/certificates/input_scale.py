"""How a network's input is scaled, so that radii can be given in the units that people think in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class InputScale:
    """`x = (u − mean)/std`, entry by entry: x is what the network sees, u what a radius is measured in.

    Args:
        mean: shaped to broadcast with one example; std positive.
        std: shaped to broadcast with one example; std positive.
        unit: what u is measured in, as it reads after "a radius in".
        slack: how much the data's scaling may be off, relatively: a millionth is more than float32's own
            rounding; 0 if the scaling is exact.

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
                "Leave out the inputs that never change, or divide them by 1.",
            )
        if not bool(torch.isfinite(self.mean).all()):
            raise ArgumentError(
                "InputScale(mean)", "must be finite", self.mean.tolist(), "Pass the data's mean."
            )

    @property
    def shortest(self) -> float:
        """A lower bound on `‖u − u'‖₂ / ‖x − x'‖₂`: the smallest std, less the slack."""
        return float(self.std.double().amin()) * (1 - self.slack)

    def seen(self, u: Tensor) -> Tensor:
        """x, what the network sees."""
        return (u - self.mean.to(u)) / self.std.to(u)

    def undone(self, x: Tensor) -> Tensor:
        """u, what the radius is measured in."""
        return x * self.std.to(x) + self.mean.to(x)


def unscaled() -> InputScale:
    """x itself is what a radius is measured in."""
    mean, std = torch.zeros((), device="cpu"), torch.ones((), device="cpu")
    return InputScale(mean, std, "units of the network's input", slack=0.0)
