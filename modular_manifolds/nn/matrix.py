"""The base class of atoms that multiply by a matrix or by each matrix of a stack."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modular_manifolds.composition.space import Space
from modular_manifolds.nn.geometry import Geometry, through_l2
from modular_manifolds.nn.leaf import Atom


class MatrixAtom(Atom):
    """An abstract atom with `W x` for every matrix W of the weight, of shape (*stack, out, in).

    The sensitivity is the largest operator norm on the manifold; in Euclidean space, which is unbounded, it is that of
    a weight of unit norm. The norm of an output is the largest over the stack, and so are the bounds.
    """

    def __init__(
        self,
        *,
        geometry: Geometry,
        shape: tuple[int, ...],
        source: Space,
        target: Space,
        mass: float,
        leading: tuple[int, ...] = (),
    ) -> None:
        matrix = (target.size, source.size)
        bound = geometry.operator_bound(matrix, source.norm, target.norm)
        constant = geometry.norm_constant(matrix, source.norm, target.norm)
        super().__init__(
            geometry=geometry,
            shape=shape,
            source=source,
            target=target,
            sensitivity=bound if math.isfinite(bound) else constant,
            lipschitz=bound,
            norm_constant=constant,
            mass=mass,
            leading=leading,
        )
        self._from, self._to = source, target

    def lipschitz_at(self, largest_singular_value: float) -> float:
        shape = (self._to.size, self._from.size)
        return largest_singular_value * through_l2(shape, self._from.norm, self._to.norm)

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        return self.lipschitz_at(product_rounding(self.weight, self._from.size, dtype)) * radius


def product_rounding(weight: Tensor, operations: int, dtype: torch.dtype) -> float:
    """A bound on `‖fl(Wx) − Wx‖₂/‖x‖₂` for each matrix of a stack, with `operations` in `dtype` for each entry.

    `|fl(Wx) − Wx| ≤ γ |W||x|` in any order of summation; eps is twice the unit roundoff. `‖|W|‖₂ ≤ √(‖W‖₁ ‖W‖∞)` needs
    no decomposition and is nearly tight for a nonnegative matrix.

    Source: Higham, "Accuracy and Stability of Numerical Algorithms" (2002), equation (3.5).
    """
    terms = operations * torch.finfo(dtype).eps
    if terms >= 1:
        return math.inf
    sizes = weight.detach().to(torch.float64).abs()
    columns, rows = sizes.sum(dim=-2).amax(dim=-1), sizes.sum(dim=-1).amax(dim=-1)
    rounded_up = 1 + 2.0**-52 * sum(sizes.shape[-2:])
    return terms / (1 - terms) * math.sqrt(float((columns * rows).amax())) * rounded_up
