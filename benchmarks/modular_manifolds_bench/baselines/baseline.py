"""The pairs that every baseline solves."""

from __future__ import annotations

from modular_manifolds.manifolds import Manifold, Stiefel
from modular_manifolds.norms import Norm, RMSOperator, Spectral
from modular_manifolds.solvers.base import Solver


class Baseline(Solver):
    """A solver of Stiefel × Spectral, in either unit, that is kept to compare with."""

    def serves(self, manifold: Manifold, norm: Norm) -> bool:
        return type(manifold) is Stiefel and type(norm) in (Spectral, RMSOperator)
