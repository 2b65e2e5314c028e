"""The signature of a module, on which the composition rules act: three numbers and two spaces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from modular_manifolds.arguments import NOT_NEGATIVE, POSITIVE, check_number, is_number
from modular_manifolds.composition.space import AnySpace, is_open
from modular_manifolds.errors import ArgumentError


def check_mass(mass: float, *, argument: str) -> float:
    """Return a mass, or refuse it if it is not finite or is negative."""
    remedy = "Pass the module's share of the learning; 0 freezes it."
    return check_number(mass, NOT_NEGATIVE, argument=argument, remedy=remedy)


def check_sensitivity(sensitivity: float, *, argument: str) -> float:
    """Return a sensitivity, or refuse it if it is not finite and positive."""
    remedy = (
        "Pass a Lipschitz bound of the module in its input. A module without one composes only if it declares a "
        "rate_scale beside sensitivity=math.inf."
    )
    return check_number(sensitivity, POSITIVE, argument=argument, remedy=remedy)


def check_slopes(
    sensitivity: float, rate_scale: float | None, *, owner: str | None = None
) -> tuple[float, float]:
    """Return a sensitivity and a rate scale (by default the sensitivity), or refuse them.

    A module without a bound (an infinite sensitivity) composes only if it declares a rate scale.

    Args:
        sensitivity: the two slopes.
        rate_scale: as `sensitivity`.
        owner: the class whose arguments they are, for the message.
    """
    template = "{}" if owner is None else owner + "({})"
    bound = math.inf
    if rate_scale is None or not (is_number(sensitivity) and sensitivity == math.inf):
        bound = check_sensitivity(sensitivity, argument=template.format("sensitivity"))
    if rate_scale is None:
        return bound, bound
    remedy = "Pass the slope that the module typically has, or leave it out to use the sensitivity."
    argument = template.format("rate_scale")
    return bound, check_number(rate_scale, POSITIVE, argument=argument, remedy=remedy)


_AS_THE_SENSITIVITY: Final = float("nan")
"""The default of `rate_scale`, recognised by identity: any other NaN is refused."""


@dataclass(frozen=True)
class Signature:
    """Mass, sensitivity, rate scale and spaces of a module.

    Args:
        mass: m ≥ 0, the module's share of the learning.
        sensitivity: s > 0, a bound on the slope in the input: `‖f(x) − f(y)‖_target ≤ s · ‖x − y‖_source`
            for weights in their unit balls and inputs in the unit ball. For a composition it is the product or
            the sum of the parts' bounds, and holds if the input of every part is in its unit ball;
            `sizes.slope` follows the sizes and needs no such condition. Infinite if there is no finite bound.
        source: the spaces. `source` is None for a module that accepts any space; only then may `target`
            contain SAME.
        target: as `source`.
        rate_scale: the slope that the budget divides the learning rate by, the sensitivity by default. A module
            whose typical slope differs from its bound declares the typical slope. It is not a bound.

    Raises:
        ArgumentError: a number is out of range, or `target` contains SAME although the source is fixed.
    """

    mass: float
    sensitivity: float
    source: AnySpace | None
    target: AnySpace
    rate_scale: float = _AS_THE_SENSITIVITY

    def __post_init__(self) -> None:
        object.__setattr__(self, "mass", check_mass(self.mass, argument="mass"))
        declared = None if self.rate_scale is _AS_THE_SENSITIVITY else self.rate_scale
        sensitivity, rate_scale = check_slopes(self.sensitivity, declared)
        object.__setattr__(self, "sensitivity", sensitivity)
        object.__setattr__(self, "rate_scale", rate_scale)
        if self.source is not None and is_open(self.target):
            raise ArgumentError(
                "target",
                "must not contain SAME if the source is fixed",
                f"{self.source} to {self.target}",
                "Write the target space out.",
            )
