"""A bound on the nuclear norm that a rational sign leaves, from traces of its resolvents."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from modular_manifolds.linalg.zolotarev import RationalSign, resolvent


@dataclass(frozen=True)
class RationalGap:
    """A bound on `‖Γ‖_nuc = Σ σ` from `Σ σ h(σ)` and traces.

    A singular value σ above the floor loses at most `κ σ h(σ)`, `κ = 1/lowest − 1`. One below loses more by at most
    `u q(σ) + v (q̂(σ) − q(σ))`, `q = 1/(1 + t²σ²)` for the largest pole t and `q̂` the same for the pole before it. The
    first is 1 for σ = 0 and counts all small singular values; the second leaves out those that are nearly zero. Each pair
    (u, v) gives a bound, and the smallest counts.

    Args:
        relative: κ.
        pairs: (u, v), in units of the scale of the singular values.
    """

    relative: float
    pairs: tuple[tuple[float, float], ...]

    @classmethod
    @functools.cache
    def of(cls, function: RationalSign) -> RationalGap:
        """The bound for singular values mapped by `function`."""
        relative = 1 / function.lowest - 1
        values = np.concatenate((np.geomspace(1e-5, 1.0, 8001) * function.floor, [0.0]))
        mapped = function(values)
        # Between the values of the grid the loss is larger by less than this factor.
        lost = 1.01 * values * (1.0 - mapped - relative * mapped)
        before, last = (0.0, *function.poles)[-2:]
        small = resolvent(values, last)
        middle = resolvent(values, before) - small
        highest = float((lost / small).max())
        pairs: list[tuple[float, float]] = []
        for share in SHARES:
            u = share * highest
            rest = np.maximum(lost - u * small, 0.0)
            v = np.divide(rest, middle, out=np.zeros_like(rest), where=rest > 0)
            pairs.append((u, float(v.max())))
        return cls(relative, tuple(pairs))

    def nuclear_norm(self, total: Tensor, scale: Tensor, before: Tensor, last: Tensor) -> Tensor:
        """A bound on `‖Γ‖_nuc`.

        Args:
            total: `Σ σ h(σ/s)`.
            scale: s.
            before: `Σ q̂(σ/s)`.
            last: `Σ q(σ/s)`.
        """
        bounds = [u * last + v * (before - last) for u, v in self.pairs]
        lost = functools.reduce(lambda x, y: x.minimum(y), bounds)
        return total * (1 + self.relative) + scale * lost


SHARES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""u of the pairs, in shares of the largest one that needs no v."""
