"""The modular norm: one norm over all weights of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.norms.base import Norm


@dataclass(frozen=True)
class ModularNorm:
    """`‖w‖ = max_i ‖w_i‖_i / share_i` over named weights.

    Unrolling the composition rules of Large et al. (2024) over the whole tree leaves one number a
    weight, its share of the learning rate. A weight with share 0 is frozen: every step of it has
    infinite length.

    Args:
        norms: the norm of each weight, by path.
        shares: the share of each weight, by path.
    """

    norms: Mapping[str, Norm]
    shares: Mapping[str, float]

    def value(self, weights: Mapping[str, Tensor]) -> Tensor:
        """`max_i ‖w_i‖_i / share_i`, a scalar."""
        self._check(weights)
        ratios = [_divide(self.norms[k].value(w), self.shares[k]) for k, w in weights.items()]
        return torch.stack([ratio.max() for ratio in ratios]).max()

    def dual(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """`Σ_i share_i · dual_i(g_i)`, a scalar."""
        self._check(gradients)
        terms = [self.shares[k] * self.norms[k].dual(g).sum() for k, g in gradients.items()]
        return torch.stack(terms).sum()

    def steepest(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`share_i · steepest_i(g_i)` for each weight: unit length in this norm."""
        self._check(gradients)
        return {k: self.shares[k] * self.norms[k].steepest(g) for k, g in gradients.items()}

    def _check(self, weights: Mapping[str, Tensor]) -> None:
        if set(weights) != set(self.norms):
            raise ArgumentError(
                "ModularNorm(weights)",
                f"must name exactly {', '.join(self.norms) or 'no weight'}",
                ", ".join(weights) or "no weight",
                "Pass dict(net.named_parameters()) or a mapping with the same names.",
            )


def _divide(value: Tensor, share: float) -> Tensor:
    """`value / share`, with 0/0 = 0."""
    if share > 0:
        return value / share
    return torch.where(value > 0, torch.full_like(value, torch.inf), torch.zeros_like(value))
