"""The health of every weight while a run goes on, measured at each evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.certificates import conditioning
from modular_manifolds.nn import Module
from modular_manifolds.nn.sharded import whole


@dataclass(frozen=True)
class WeightHealth:
    """One weight, in float64: what says early that training goes wrong.

    `largest` and `smallest` singular value and their ratio `condition` (infinite without full rank, None for a vector);
    `stable_rank = ‖W‖_F² / σ_max²`; `off_manifold`, the manifold's residual relative to its radius; `update =
    ‖ΔW‖_F / ‖W‖_F` of the epoch's last step, None if that is not known.
    """

    largest: float
    smallest: float
    condition: float | None
    stable_rank: float
    off_manifold: float
    update: float | None


def copy_weights(net: Module) -> dict[str, Tensor]:
    """The whole weights as they are now, to compare those after a step with."""
    return {path: whole(weight.detach()).clone() for path, weight in net.named_parameters()}


@torch.no_grad()
def health(net: Module, before: dict[str, Tensor] | None = None) -> dict[str, WeightHealth]:
    """Measure every weight of `net`, by path; `before` are the weights before the last step."""
    found: dict[str, WeightHealth] = {}
    parameters = dict(net.named_parameters())
    for row in conditioning(net).rows:
        weight = parameters[row.path].detach().double()
        length = float(torch.linalg.vector_norm(weight))
        moved = None if before is None else float((weight - before[row.path].double()).norm())
        found[row.path] = WeightHealth(
            row.largest,
            row.smallest,
            condition=row.condition,
            stable_rank=(length / row.largest) ** 2 if row.largest > 0 else 0.0,
            off_manifold=row.residual,
            update=None if moved is None else _ratio(moved, length),
        )
    return found


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.inf
