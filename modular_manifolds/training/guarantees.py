"""The guarantees of a trained network: budget, bounds, and conditioning of every weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from modular_manifolds.certificates import (
    ActivationReport,
    ConditioningReport,
    LipschitzReport,
    RobustnessReport,
    activations,
    conditioning,
    lipschitz,
    robustness,
)
from modular_manifolds.certificates.attack import Attack
from modular_manifolds.certificates.certified_robustness import RADII
from modular_manifolds.composition import Budget
from modular_manifolds.nn import Module, budget
from modular_manifolds.training.data import DataSet

ON_MANIFOLD = 1e-5
"""A weight with at most this residual, relative to the radius, is on its manifold."""


@dataclass(frozen=True)
class Guarantees:
    """The evidence about one network."""

    budget: Budget
    lipschitz: LipschitzReport
    conditioning: ConditioningReport
    activations: ActivationReport

    @property
    def off_manifold(self) -> list[str]:
        """The weights that are off their manifolds, for example after training without manifolds."""
        return [row.path for row in self.conditioning.rows if not row.residual <= ON_MANIFOLD]

    @property
    def declared_text(self) -> str:
        """The declared bound as a sentence."""
        report = self.lipschitz
        bound = f"{report.declared:.4g} from {report.input_norm} to {report.output_norm}"
        if self.off_manifold:
            return f"not guaranteed: the weights are off their manifolds (on them, {bound})"
        return f"{bound}, at every point of the manifolds"


def guarantees(net: Module, lr: float, points: torch.Tensor | None) -> Guarantees:
    """The guarantees of `net`, with slopes searched and sizes measured at `points`.

    Without points, for tokens, the radius is 1, because a one-hot token has l1 norm 1.
    """
    if points is None:
        bounds, sizes = lipschitz(net, radius=1.0), activations(net, radius=1.0)
    else:
        bounds, sizes = lipschitz(net, points=points[:32]), activations(net, points=points)
    return Guarantees(budget(net, lr), bounds, conditioning(net), sizes)


def certified_predictions(
    net: Module,
    data: DataSet,
    *,
    points: int,
    radii: Sequence[float] = RADII,
    attack: Attack | None = None,
) -> RobustnessReport:
    """Certify the predictions on the first `points` test examples; radii are in the data's own units."""
    return robustness(
        net,
        data.test.images[:points],
        data.test.labels[:points],
        radii=radii,
        scale=data.scale,
        attack=attack,
    )
