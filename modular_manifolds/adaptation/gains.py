"""Gains: weights with several dimensions that act entry by entry, and so are vectors and no matrices."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from modular_manifolds.adaptation.place import Place
from modular_manifolds.nn.sharded import whole

NORMALISATIONS: Final = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
MATRIX_WORDS: Final = ("linear", "conv", "att", "embed", "proj", "head", "mlp", "block", "layer")
"""Fragments of the names of classes that hold matrices although they are named after a norm, such as `NormLinear`."""
ENTRY_NAMES: Final = ("A_log",)
"""Names of tables of numbers that act entry by entry: the decays of state-space models."""


def is_gain_by_name(place: Place) -> bool:
    """Whether a weight belongs to a normalisation layer, or has a name of `ENTRY_NAMES`."""
    module = place.module
    if isinstance(module, NORMALISATIONS) or place.attribute in ENTRY_NAMES:
        return True
    name = type(module).__name__.lower().replace("layernorm", "norm")
    return "norm" in name and not any(word in name for word in MATRIX_WORDS)


@torch.no_grad()
def is_gain_by_values(parameter: Tensor) -> bool:
    """Whether a weight is constant and not zero, or all its rows, or all its columns, are equal.

    As a matrix such a weight would have rank 1, and nobody starts a matrix like this. Zero is the start of some matrices.
    """
    if parameter.dim() < 2:
        return False
    x = whole(parameter.detach())
    if not bool(x.any()):
        return False
    rows = x.shape[-2] > 1 and bool((x == x[..., :1, :]).all())
    columns = x.shape[-1] > 1 and bool((x == x[..., :1]).all())
    if min(x.shape[-2:]) > 1:
        return rows or columns
    return bool((x == x.flatten()[0]).all())
