"""What an optimiser's settings must satisfy, said in words before the first step."""

from __future__ import annotations

import math
from collections.abc import Mapping

from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.select import find_solver


def check_settings(
    geometries: Mapping[str, Geometry],
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    solver: str | Solver,
    on_nonfinite: str,
) -> None:
    """Refuse settings that are out of range or would do nothing."""
    _between("lr", lr, math.inf, "Pass a learning rate such as 0.1.")
    _between("momentum", momentum, 1.0, "Pass a momentum such as 0.95, or 0 for none.")
    if nesterov and momentum == 0:
        raise ArgumentError("nesterov", "needs momentum", "momentum=0", "Pass momentum=0.95.")
    _between("weight_decay", weight_decay, math.inf, "Pass 0 for none.")
    if weight_decay:
        for path, geometry in geometries.items():
            if geometry.manifold.fixed_size:
                raise ArgumentError(
                    "weight_decay",
                    f"must be 0 where a weight has a fixed size: on {geometry.manifold} the decay is "
                    "normal to the manifold and does nothing",
                    f"{weight_decay} with '{path}' on {geometry.manifold}",
                    "Leave it out; the manifold already bounds the weight.",
                )
    if on_nonfinite not in ("raise", "skip"):
        raise ArgumentError(
            "on_nonfinite", "must be 'raise' or 'skip'", repr(on_nonfinite), "Leave it at 'raise'."
        )
    for geometry in set(geometries.values()):
        find_solver(geometry.manifold, geometry.norm, solver)


def _between(name: str, value: float, below: float, remedy: str) -> None:
    if not (isinstance(value, int | float) and math.isfinite(value) and 0 <= value < below):
        rule = "must be finite and at least 0" if below == math.inf else "must lie in [0, 1)"
        raise ArgumentError(name, rule, repr(value), remedy)
