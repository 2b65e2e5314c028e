"""The part of a module that the composition rules know: three numbers and two spaces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from modular_manifolds.composition.space import AnySpace, is_open
from modular_manifolds.errors import ArgumentError


def check_mass(mass: float, *, argument: str) -> None:
    """Refuse a mass that is not finite and at least zero."""
    if not (isinstance(mass, int | float) and math.isfinite(mass) and mass >= 0):
        raise ArgumentError(
            argument,
            "must be finite and at least 0",
            repr(mass),
            "Pass the module's share of the learning; 0 freezes it.",
        )


def check_sensitivity(sensitivity: float, *, argument: str) -> None:
    """Refuse a sensitivity that is not finite and positive."""
    if not (
        isinstance(sensitivity, int | float) and math.isfinite(sensitivity) and sensitivity > 0
    ):
        raise ArgumentError(
            argument,
            "must be finite and positive",
            repr(sensitivity),
            "Pass a Lipschitz bound of the module in its input. A module without one composes only if it "
            "declares a rate_scale beside sensitivity=math.inf.",
        )


def check_rate_scale(rate_scale: float, *, argument: str) -> None:
    """Refuse a rate scale that is not finite and positive."""
    if not (isinstance(rate_scale, int | float) and math.isfinite(rate_scale) and rate_scale > 0):
        raise ArgumentError(
            argument,
            "must be finite and positive",
            repr(rate_scale),
            "Pass the slope that the module typically has, or leave it out to use the sensitivity.",
        )


def check_slopes(sensitivity: float, rate_scale: float | None, *, of: str) -> None:
    """Refuse a sensitivity or a rate scale that cannot be used; `of` names the module's class.

    A module without a bound (an infinite sensitivity) composes only if it declares a rate scale.
    """
    if rate_scale is not None:
        check_rate_scale(rate_scale, argument=f"{of}(rate_scale)")
    if rate_scale is None or sensitivity != math.inf:
        check_sensitivity(sensitivity, argument=f"{of}(sensitivity)")


_AS_THE_SENSITIVITY: Final = float("nan")
"""The default of `rate_scale`, recognised by identity: any other NaN is refused."""


@dataclass(frozen=True)
class Signature:
    """Mass, sensitivity, rate scale and spaces of a module.

    Args:
        mass: m ≥ 0, the module's share of the learning.
        sensitivity: s > 0, a bound on the slope in the input: `‖f(x) − f(y)‖_target ≤ s · ‖x − y‖_source`
            for weights in their unit balls and inputs in the unit ball. For a composition it is the product or
            the sum of the parts' bounds, and holds as long as the input of every part stays in its unit ball;
            `tree.slope` follows the sizes and needs no such condition. Infinite if there is no finite bound.
        source, target: the spaces. `source` is None for a module that takes any space; only then may `target`
            mention SAME.
        rate_scale: the slope that the budget divides the learning rate by, the sensitivity by default. A module
            whose typical slope differs from its bound declares the typical one. It bounds nothing.

    Raises:
        ArgumentError: a number is out of range, or `target` mentions SAME although the source is fixed.
    """

    mass: float
    sensitivity: float
    source: AnySpace | None
    target: AnySpace
    rate_scale: float = _AS_THE_SENSITIVITY

    def __post_init__(self) -> None:
        check_mass(self.mass, argument="mass")
        if self.rate_scale is _AS_THE_SENSITIVITY:
            check_sensitivity(self.sensitivity, argument="sensitivity")
            object.__setattr__(self, "rate_scale", self.sensitivity)
        check_rate_scale(self.rate_scale, argument="rate_scale")
        if self.sensitivity != math.inf:
            check_sensitivity(self.sensitivity, argument="sensitivity")
        if self.source is not None and is_open(self.target):
            raise ArgumentError(
                "target",
                "must not say SAME where the source is fixed",
                f"{self.source} to {self.target}",
                "Write the target space out.",
            )
