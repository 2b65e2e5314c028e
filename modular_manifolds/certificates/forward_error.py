"""How far the network that torch computes is from the one the certificate speaks of.

The standard model of floating point arithmetic: every operation is exact up to one relative rounding,
plus an underflow of at most the smallest normal number; sums may be taken in any order, fused or not. Not
covered: overflow, and products taken in a coarser type than the weights' (TF32, autocast).
Source: Higham, "Accuracy and Stability of Numerical Algorithms" (2002), sections 2.2 and 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from modular_manifolds.composition.fold import flow, fold
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.radius import (
    Radius,
    added,
    each_of,
    mapped,
    scaled,
    times,
    total,
)
from modular_manifolds.composition.sizes import LeafBound
from modular_manifolds.composition.space import (
    AnySpace,
    ProductSpace,
    Space,
    conversion,
    substitute,
)
from modular_manifolds.composition.tree import Tree


@dataclass(frozen=True)
class Computed:
    """A bound on the norm of the exact value, and on the distance of the computed one from it."""

    size: Radius
    error: Radius
    space: AnySpace

    @property
    def reach(self) -> Radius:
        """A bound on the norm of the computed value."""
        return added((self.size, self.error))


def forward_error(
    tree: Tree, source: AnySpace, radius: float, slope_of: LeafBound, dtype: torch.dtype
) -> float:
    """Bound `‖f̂(x) − f(x)‖` for `‖x‖ ≤ radius`, f̂ being the network as torch computes it in `dtype`.

    Through a leaf of slope bound L the error that arrives grows by L, and the leaf's own rounding of
    what really arrives is added: `e' = L e + δ(‖x‖ + e)`. A sum of m parts adds `γ_{m−1}` times the sizes
    of its parts, a scale two roundings.
    """
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny

    def scale(factor: float, part: Computed) -> Computed:
        # The factor is rounded to the dtype, and so is the product.
        own = 2 * eps * abs(factor) + tiny
        underflow = _underflow(part.space, part.space, dtype)
        rounding = mapped(lambda size: times(own, size) + underflow, part.reach)
        error = added((scaled(factor, part.error), rounding))
        return Computed(scaled(factor, part.size), error, part.space)

    def summed(parts: Sequence[Computed]) -> Computed:
        terms = (len(parts) - 1) * eps
        gamma = terms / (1 - terms) if terms < 1 else math.inf
        rounding = scaled(gamma, added([part.reach for part in parts]))
        error = added([*(part.error for part in parts), rounding])
        return Computed(added([part.size for part in parts]), error, parts[0].space)

    rules = flow(
        "rounding errors",
        leaf=lambda leaf, x: _leaf(leaf, x, slope_of, dtype),
        parallel=_side_by_side,
        total=summed,
        scale=scale,
    )
    return total(fold(tree, rules)(Computed(radius, 0.0, source)).error)


def _leaf(leaf: Leaf, x: Computed, slope_of: LeafBound, dtype: torch.dtype) -> Computed:
    if leaf.takes_parts and isinstance(x.space, ProductSpace):
        sizes, errors = (each_of(each, len(x.space.parts)) for each in (x.size, x.error))
        found = [
            _leaf(leaf, Computed(size, error, space), slope_of, dtype)
            for size, error, space in zip(sizes, errors, x.space.parts, strict=True)
        ]
        return _side_by_side(found)
    # The slope between the exact and the computed input, both within this radius.
    bound = partial(slope_of, leaf)
    slope = leaf.slope(x.reach, bound)
    target = substitute(leaf.signature.target, x.space)
    rounding = leaf.rounding_within(x.reach, dtype)
    if rounding > 0:
        rounding += _underflow(x.space, target, dtype)
    size = leaf.reach(x.size, lambda _: slope)
    return Computed(size, times(slope, total(x.error)) + rounding, target)


def _side_by_side(parts: Sequence[Computed]) -> Computed:
    return Computed(
        tuple(part.size for part in parts),
        tuple(part.error for part in parts),
        ProductSpace(tuple(part.space for part in parts)),
    )


def _underflow(source: AnySpace, target: AnySpace, dtype: torch.dtype) -> float:
    """The error that underflow may cause in a module whose outputs each take a product an input, and a few more."""
    return (_features(source) + 8) * torch.finfo(dtype).tiny * _norm_of_ones(target)


def _features(space: AnySpace) -> int:
    if isinstance(space, ProductSpace):
        return sum(_features(part) for part in space.parts)
    assert isinstance(space, Space)
    return space.size


def _norm_of_ones(space: AnySpace) -> float:
    if isinstance(space, ProductSpace):
        return math.fsum(_norm_of_ones(part) for part in space.parts)
    assert isinstance(space, Space)
    return conversion("linf", space.norm, space.size)
