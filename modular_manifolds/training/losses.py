"""The loss that a run names, as a function of outputs and labels."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from modular_manifolds.certificates import InputScale
from modular_manifolds.certificates.bounds import bounds
from modular_manifolds.errors import SpecError
from modular_manifolds.nn import Module
from modular_manifolds.specs.losses import CrossEntropySpec, LossSpec, MarginSpec

Loss = Callable[[Tensor, Tensor], Tensor]
"""A map from outputs (batch, classes) or (batch, positions, classes) and a label for each to their mean loss."""


def build_loss(spec: LossSpec, net: Module, scale: InputScale | None) -> Loss:
    """The loss of `spec` for `net` on data scaled by `scale`; None if inputs have no distance.

    Raises:
        SpecError: a margin is asked for, and the inputs have no distance to measure it in, or the
            network has no declared bound to scale it with.
    """
    match spec:
        case CrossEntropySpec():
            return _cross_entropy
        case MarginSpec():
            return _margin(spec, net, scale)


def _cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.flatten(0, -2), labels.flatten())


def _margin(spec: MarginSpec, net: Module, scale: InputScale | None) -> Loss:
    """Source: Y. Tsuzuku, I. Sato, M. Sugiyama, "Lipschitz-Margin Training" (2018) for the offset;
    B. Prach, C. Lampert, "Almost-Orthogonal Layers" (2022) for offset and temperature together."""
    if scale is None:
        raise SpecError(
            "loss.name",
            "must be cross-entropy for text, whose characters have no distance",
            "margin",
            "Leave loss out.",
        )
    declared = bounds(net, input_norm="l2", output_norm="l2").declared
    if not (math.isfinite(declared) and declared > 0):
        raise SpecError(
            "loss.name",
            "can be margin for a network with a finite declared Lipschitz bound only",
            declared,
            "Put every weight on a bounded manifold such as stiefel, or leave loss out.",
        )
    bound = declared / scale.shortest
    offset = math.sqrt(2.0) * spec.margin

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        wanted = functional.one_hot(labels, outputs.shape[1]).to(outputs)
        return functional.cross_entropy(
            spec.temperature * (outputs / bound - offset * wanted), labels
        )

    return loss
