"""The names that specifications use, and the class behind each: the one table to extend.

A new atom, bond, manifold or norm is one row here; its fields are read from its constructor.
"""

from __future__ import annotations

from typing import Final

from modular_manifolds.manifolds import (
    BalancedRows,
    Euclidean,
    Manifold,
    Oblique,
    SpectralBall,
    SpectralSphere,
    Sphere,
    Stiefel,
)
from modular_manifolds.nn import (
    GELU,
    Abs,
    Amplify,
    Bias,
    CausalAttention,
    Conv2d,
    Dropout,
    Embedding,
    Flatten,
    Gain,
    Heads,
    Identity,
    Linear,
    MaxMin,
    MaxPool,
    MeanPool,
    MergeHeads,
    Module,
    Parallel,
    ReLU,
    Residual,
    RMSNorm,
    Rotary,
    Scale,
    Series,
    SiLU,
    Sum,
)
from modular_manifolds.norms import Frobenius, Max, Norm, RMSOperator, RowRMS, Spectral

MANIFOLDS: Final[dict[str, type[Manifold]]] = {
    "euclidean": Euclidean,
    "sphere": Sphere,
    "oblique": Oblique,
    "balanced_rows": BalancedRows,
    "stiefel": Stiefel,
    "spectral_ball": SpectralBall,
    "spectral_sphere": SpectralSphere,
}

NORMS: Final[dict[str, type[Norm]]] = {
    "frobenius": Frobenius,
    "max": Max,
    "spectral": Spectral,
    "rms_operator": RMSOperator,
    "row_rms": RowRMS,
}

MODULES: Final[dict[str, type[Module]]] = {
    "linear": Linear,
    "embedding": Embedding,
    "conv2d": Conv2d,
    "bias": Bias,
    "gain": Gain,
    "identity": Identity,
    "relu": ReLU,
    "abs": Abs,
    "max_min": MaxMin,
    "gelu": GELU,
    "silu": SiLU,
    "rms_norm": RMSNorm,
    "mean_pool": MeanPool,
    "max_pool": MaxPool,
    "dropout": Dropout,
    "amplify": Amplify,
    "flatten": Flatten,
    "heads": Heads,
    "merge_heads": MergeHeads,
    "rotary": Rotary,
    "causal_attention": CausalAttention,
    "scale": Scale,
    "residual": Residual,
}
"""Atoms, bonds and what wraps one module, by constructor arguments."""

COMPOUNDS: Final[dict[str, type[Series] | type[Parallel] | type[Sum]]] = {
    "series": Series,
    "parallel": Parallel,
    "sum": Sum,
}
"""What takes modules in a row, with names or without."""
