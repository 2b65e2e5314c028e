"""The names of classes in specifications. The fields of a class are read from its constructor.

A new atom or bond is one row here. Manifolds and norms are those of the table of pairs, under their own names.
"""

from __future__ import annotations

from typing import Final

from modular_manifolds.manifolds.base import Manifold
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
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers import pairs
from modular_manifolds.values import name_of

MANIFOLDS: Final[dict[str, type[Manifold]]] = {
    name_of(pair.manifold): pair.manifold for pair in pairs()
}
NORMS: Final[dict[str, type[Norm]]] = {name_of(pair.norm): pair.norm for pair in pairs()}

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
"""Atoms, bonds and wrappers of one module."""

COMPOUNDS: Final[dict[str, type[Series] | type[Parallel] | type[Sum]]] = {
    "series": Series,
    "parallel": Parallel,
    "sum": Sum,
}
"""The types that take several modules, with or without names."""
