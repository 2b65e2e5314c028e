"""Defaults: the geometry and the mass of each role, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.euclidean import Euclidean
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.norms.base import Norm
from modular_manifolds.norms.rms_operator import RMSOperator
from modular_manifolds.norms.row_rms import RowRMS

Role: TypeAlias = Literal[
    "embedding", "position", "hidden", "increment", "unembedding", "head", "vector"
]


@dataclass(frozen=True)
class Default:
    """The geometry of a role and its mass.

    Args:
        manifold: the manifold, whose radius is in units of the norm.
        norm: the norm.
        mass: the total mass of the role, divided equally among its logical matrices.
    """

    manifold: Manifold
    norm: Norm
    mass: float


DEFAULTS: Final[Mapping[Role, Default]] = MappingProxyType(
    {
        "embedding": Default(Euclidean(), RowRMS(), 1.0),
        "position": Default(Euclidean(), RowRMS(), 0.3),
        "hidden": Default(Stiefel(), RMSOperator(), 3.0),
        "increment": Default(Euclidean(), RMSOperator(), 1.0),
        "unembedding": Default(Euclidean(), RMSOperator(), 0.075),
        "head": Default(Euclidean(), RMSOperator(), 0.6),
        "vector": Default(Euclidean(), RMSOperator(), 0.3),
    }
)
"""Hidden matrices keep rms norms, embeddings move by rows, the head is free.

An `unembedding` is a head with one output for each token of an embedding. Its orthogonal steps move rare tokens as far as
frequent ones, so it is lighter than a head over classes. An `increment` is a matrix that starts at zero and is added to a frozen one, as LoRA's B: a manifold would move it away from
zero. The masses come from a small GPT on text at two widths, and from classifiers: docs/experiments.md has the tables and their commands.
"""

PER_HEAD: Final = True
"""Whether queries, keys and values are stacks with one matrix for each head, if the module declares its heads."""

DEFAULT_RATE: Final = 1.0
"""The learning rate of a plan, as the change of the outputs in a step. docs/experiments.md compares it with tuned rates."""
