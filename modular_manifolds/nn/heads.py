"""Projections to attention heads with one matrix for each head, and the concatenation of heads."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from modular_manifolds.arguments import check_count
from modular_manifolds.composition.space import Space
from modular_manifolds.manifolds import Manifold, Stiefel
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.leaf import Bond
from modular_manifolds.nn.matrix import MatrixAtom
from modular_manifolds.norms import Norm, RMSOperator

POSITIONS = 5
"""The number of positions of a trial input."""


class Heads(MatrixAtom):
    """`W_h x` for every head h: (…, positions, features) to (…, heads, positions, head_features).

    The weight is a stack of shape (heads, head_features, features), and each of its matrices is a point of the
    manifold. The default is Stiefel of radius `√(head_features/features)`, for which
    `‖W_h x‖_rms = ‖W_h x‖₂/√head_features ≤ √(head_features/features) ‖x‖₂/√head_features = ‖x‖_rms`. The norm of
    the output is the largest over heads and positions, and that of a step the largest over heads. Sensitivity and
    norm constant are 1.

    Args:
        features: the features of the input.
        heads: the number of heads.
        head_features: the features of each head.
        manifold: the geometry of each head's matrix; the norm must be from rms to rms.
        norm: as `manifold`.
        mass: the share of the learning; 0 freezes the weight.

    Raises:
        ArgumentError: a size or the mass is out of range.
        UnsupportedPairError: the pair of manifold and norm has no solver.
    """

    def __init__(
        self,
        features: int,
        heads: int,
        head_features: int,
        *,
        manifold: Manifold | None = None,
        norm: Norm | None = None,
        mass: float = 1.0,
    ) -> None:
        features = check_count(features, argument="Heads(features)", what="features")
        heads = check_count(heads, argument="Heads(heads)", what="heads")
        head_features = check_count(head_features, argument="Heads(head_features)", what="features")
        unit_stiefel = Stiefel(radius=math.sqrt(head_features / features))
        super().__init__(
            geometry=Geometry(
                unit_stiefel if manifold is None else manifold,
                RMSOperator() if norm is None else norm,
            ),
            shape=(heads, head_features, features),
            source=Space(features, "rms"),
            target=Space(head_features, "rms"),
            mass=mass,
            leading=(POSITIONS,),
        )
        self.features = features
        self.heads = heads
        self.head_features = head_features

    def describe(self) -> str:
        return f"Heads({self.features}, {self.heads}, {self.head_features})"

    def forward(self, x: Tensor) -> Tensor:
        projected = functional.linear(x, self.weight.flatten(0, 1))
        return projected.unflatten(-1, (self.heads, self.head_features)).transpose(-2, -3)


class MergeHeads(Bond):
    """Concatenates heads: (…, heads, positions, head_features) to (…, positions, heads · head_features).

    Sensitivity 1 from the largest rms over heads: `‖(x_1, …, x_H)‖_rms² = Σ_h ‖x_h‖_rms²/H ≤ max_h ‖x_h‖_rms²`.
    A `Linear` after it mixes the heads. On the Stiefel manifold it preserves their norm, whereas an average over
    heads would shrink H uncorrelated heads by √H.

    Raises:
        ArgumentError: a size is out of range.
    """

    def __init__(self, heads: int, head_features: int) -> None:
        heads = check_count(heads, argument="MergeHeads(heads)", what="heads")
        head_features = check_count(
            head_features, argument="MergeHeads(head_features)", what="features"
        )
        super().__init__(
            source=Space(head_features, "rms"),
            target=Space(heads * head_features, "rms"),
            leading=(heads, POSITIONS),
        )
        self.heads = heads
        self.head_features = head_features

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        del radius, dtype
        return 0.0

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(-2, -3).flatten(-2)
