"""What the composition rules know of a module: two numbers and two spaces."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
            "Pass a Lipschitz bound of the module in its input; a module without one cannot be composed.",
        )


@dataclass(frozen=True)
class Signature:
    """Mass, sensitivity and spaces of a module.

    `mass` m ≥ 0 is the module's share of the learning. `sensitivity` s > 0 bounds the slope in the
    input: `‖f(x) − f(y)‖_target ≤ s · ‖x − y‖_source` for weights in their unit balls. `source` is
    None for a module that takes any space; only then may `target` mention SAME.
    """

    mass: float
    sensitivity: float
    source: AnySpace | None
    target: AnySpace

    def __post_init__(self) -> None:
        check_mass(self.mass, argument="mass")
        check_sensitivity(self.sensitivity, argument="sensitivity")
        if self.source is not None and is_open(self.target):
            raise ArgumentError(
                "target",
                "must not say SAME where the source is fixed",
                f"{self.source} to {self.target}",
                "Write the target space out.",
            )
