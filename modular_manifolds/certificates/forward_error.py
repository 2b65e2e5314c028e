"""How far the network that torch computes is from the one the certificate speaks of.

The standard model of floating point arithmetic: every operation is exact up to one relative rounding,
plus an underflow of at most the smallest normal number; sums may be taken in any order, fused or not. Not
covered: overflow, and products taken in a coarser type than the weights' (TF32, autocast).
Source: Higham, "Accuracy and Stability of Numerical Algorithms" (2002), sections 2.2 and 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from modular_manifolds.certificates.leaves import module_at
from modular_manifolds.certificates.propagation import SlopeOf
from modular_manifolds.composition.space import (
    AnySpace,
    ProductSpace,
    Space,
    conversion,
    substitute,
)
from modular_manifolds.composition.tree import Leaf, Parallel, Scale, Series, Sum, Tree, times
from modular_manifolds.nn.module import Module


@dataclass(frozen=True)
class Computed:
    """A bound on the norm of the exact value, and on the distance of the computed one from it."""

    size: float
    error: float
    space: AnySpace

    @property
    def reach(self) -> float:
        """A bound on the norm of the computed value."""
        return self.size + self.error


def forward_error(
    net: Module, tree: Tree, source: AnySpace, radius: float, slope_of: SlopeOf
) -> float:
    """A bound on `‖f̂(x) − f(x)‖` for `‖x‖ ≤ radius`, f̂ being `net` as torch computes it in its weights' dtype.

    Through a leaf of slope bound L the error that arrives grows by L, and the leaf's own rounding of
    what really arrives is added: `e' = L e + δ(‖x‖ + e)`. A sum of m parts adds `γ_{m−1}` times the sizes
    of its parts, a scale two roundings.
    """
    return _through(net, tree, Computed(radius, 0.0, source), slope_of, dtype_of(net)).error


def dtype_of(net: Module) -> torch.dtype:
    """The coarsest dtype among the weights; torch's default without weights."""
    types = {parameter.dtype for parameter in net.parameters()} or {torch.get_default_dtype()}
    return max(types, key=lambda each: torch.finfo(each).eps)


def own_rounding(net: Module, leaf: Leaf, radius: float, dtype: torch.dtype) -> float:
    """A bound on what the leaf alone rounds for inputs of norm at most `radius`, underflow aside."""
    module = module_at(net, leaf)
    if module is None:
        return 0.0 if leaf.identity else math.inf
    return module.rounding_within(radius, dtype)


def _through(
    net: Module, tree: Tree, x: Computed, slope_of: SlopeOf, dtype: torch.dtype
) -> Computed:
    eps = torch.finfo(dtype).eps
    match tree:
        case Leaf():
            # The slope between the exact and the computed input, both within this radius.
            slope = slope_of(tree, x.reach)
            target = substitute(tree.signature.target, x.space)
            rounding = own_rounding(net, tree, x.reach, dtype)
            if rounding > 0:
                rounding += _underflow(x.space, target, dtype)
            size = times(slope, x.size) + tree.offset
            return Computed(size, times(slope, x.error) + rounding, target)
        case Scale():
            part = _through(net, tree.part, x, slope_of, dtype)
            factor = abs(tree.factor)
            # The factor is rounded to the dtype, and so is the product.
            rounding = times(2 * eps * factor + torch.finfo(dtype).tiny, part.reach)
            rounding += _underflow(part.space, part.space, dtype)
            size, error = times(factor, part.size), times(factor, part.error)
            return Computed(size, error + rounding, part.space)
        case Series():
            for part in tree.parts:
                x = _through(net, part, x, slope_of, dtype)
            return x
        case Sum():
            parts = [_through(net, part, x, slope_of, dtype) for part in tree.parts]
            terms = (len(parts) - 1) * eps
            gamma = terms / (1 - terms) if terms < 1 else math.inf
            rounding = times(gamma, math.fsum(part.reach for part in parts))
            error = math.fsum(part.error for part in parts) + rounding
            return Computed(math.fsum(part.size for part in parts), error, parts[0].space)
        case Parallel():
            parts = [_through(net, part, x, slope_of, dtype) for part in tree.parts]
            return Computed(
                math.fsum(part.size for part in parts),
                math.fsum(part.error for part in parts),
                ProductSpace(tuple(part.space for part in parts)),
            )


def _underflow(source: AnySpace, target: AnySpace, dtype: torch.dtype) -> float:
    """What underflow may cost a module whose outputs each take a product an input, and a few more."""
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
