"""Forward error: the distance between the computed and the exact outputs of a network.

The standard model of floating point arithmetic: every operation is exact up to one relative rounding,
plus an underflow of at most the smallest normal number. Sums may have any order, fused or not. Overflow and products in a
coarser dtype than the weights' (TF32, autocast) are not covered.
Source: Higham, "Accuracy and Stability of Numerical Algorithms" (2002), sections 2.2 and 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from modular_manifolds.composition.folding import flow, fold
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
class ComputedValue:
    """Bounds on the norm of the exact value, and on the error of the computed value."""

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

    A leaf with slope bound L multiplies the error of its input by L, and adds its own rounding for the computed input:
    `e' = L e + δ(‖x‖ + e)`. A sum of m parts adds `γ_{m−1}` times the sizes of its parts, a scale two roundings.
    """
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny

    def scale(factor: float, part: ComputedValue) -> ComputedValue:
        # The factor is rounded to the dtype, and so is the product.
        relative = 2 * eps * abs(factor) + tiny
        underflow = _underflow(part.space, part.space, dtype)
        rounding = mapped(lambda size: times(relative, size) + underflow, part.reach)
        error = added((scaled(factor, part.error), rounding))
        return ComputedValue(scaled(factor, part.size), error, part.space)

    def sum_rule(parts: Sequence[ComputedValue]) -> ComputedValue:
        terms = (len(parts) - 1) * eps
        gamma = terms / (1 - terms) if terms < 1 else math.inf
        rounding = scaled(gamma, added([part.reach for part in parts]))
        error = added([*(part.error for part in parts), rounding])
        return ComputedValue(added([part.size for part in parts]), error, parts[0].space)

    rules = flow(
        "rounding errors",
        leaf=lambda leaf, x: _through_leaf(leaf, x, slope_of, dtype),
        parallel=_parallel,
        total=sum_rule,
        scale=scale,
    )
    return total(fold(tree, rules)(ComputedValue(radius, 0.0, source)).error)


def _through_leaf(
    leaf: Leaf, x: ComputedValue, slope_of: LeafBound, dtype: torch.dtype
) -> ComputedValue:
    if leaf.takes_parts and isinstance(x.space, ProductSpace):
        sizes, errors = (each_of(each, len(x.space.parts)) for each in (x.size, x.error))
        parts = [
            _through_leaf(leaf, ComputedValue(size, error, space), slope_of, dtype)
            for size, error, space in zip(sizes, errors, x.space.parts, strict=True)
        ]
        return _parallel(parts)
    # A slope bound on a ball that contains the exact and the computed input.
    bound = partial(slope_of, leaf)
    slope = leaf.slope(x.reach, bound)
    target = substitute(leaf.signature.target, x.space)
    rounding = leaf.rounding_within(x.reach, dtype)
    if rounding > 0:
        rounding += _underflow(x.space, target, dtype)
    size = leaf.reach(x.size, lambda _: slope)
    return ComputedValue(size, times(slope, total(x.error)) + rounding, target)


def _parallel(parts: Sequence[ComputedValue]) -> ComputedValue:
    return ComputedValue(
        tuple(part.size for part in parts),
        tuple(part.error for part in parts),
        ProductSpace(tuple(part.space for part in parts)),
    )


def _underflow(source: AnySpace, target: AnySpace, dtype: torch.dtype) -> float:
    """The error by underflow in a module, with one product for each input and a few more in each output."""
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
