"""What the composition rules know of a module: two numbers and two spaces."""

from __future__ import annotations

from dataclasses import dataclass

from modular_manifolds.arguments import NOT_NEGATIVE, POSITIVE, check_number
from modular_manifolds.composition.space import AnySpace, is_open
from modular_manifolds.errors import ArgumentError


def check_mass(mass: float, *, argument: str) -> float:
    """Give back a mass, or refuse one that is not finite and at least zero."""
    remedy = "Pass the module's share of the learning; 0 freezes it."
    return check_number(mass, NOT_NEGATIVE, argument=argument, remedy=remedy)


def check_sensitivity(sensitivity: float, *, argument: str) -> float:
    """Give back a sensitivity, or refuse one that is not finite and positive."""
    remedy = "Pass a Lipschitz bound of the module in its input; a module without one cannot be composed."
    return check_number(sensitivity, POSITIVE, argument=argument, remedy=remedy)


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
        sensitivity = check_sensitivity(self.sensitivity, argument="sensitivity")
        object.__setattr__(self, "mass", check_mass(self.mass, argument="mass"))
        object.__setattr__(self, "sensitivity", sensitivity)
        if self.source is not None and is_open(self.target):
            raise ArgumentError(
                "target",
                "must not say SAME where the source is fixed",
                f"{self.source} to {self.target}",
                "Write the target space out.",
            )
