"""How far the network that torch computes is from the one the certificate speaks of.

The standard model of floating point arithmetic: every operation is exact up to one relative rounding,
plus an underflow of at most the smallest normal number; sums may be taken in any order, fused or not. Not
covered: overflow, and products taken in a coarser type than the weights' (TF32, autocast).
Source: Higham, "Accuracy and Stability of Numerical Algorithms" (2002), sections 2.2 and 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch

from modular_manifolds.certificates.leaves import module_at
from modular_manifolds.certificates.propagation import SlopeOf
from modular_manifolds.composition.radius import (
    Radius,
    added,
    each_of,
    mapped,
    scaled,
    times,
    total,
)
from modular_manifolds.composition.space import (
    AnySpace,
    ProductSpace,
    Space,
    conversion,
    substitute,
)
from modular_manifolds.composition.tree import Leaf, Parallel, Scale, Series, Sum, Tree
from modular_manifolds.nn.module import Module


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
    net: Module,
    tree: Tree,
    source: AnySpace,
    radius: float,
    slope_of: SlopeOf,
    dtype: torch.dtype | None = None,
) -> float:
    """A bound on `‖f̂(x) − f(x)‖` for `‖x‖ ≤ radius`, f̂ being `net` as torch computes it in `dtype`.

    Without `dtype` it is the dtype of the weights.

    Through a leaf of slope bound L the error that arrives grows by L, and the leaf's own rounding of
    what really arrives is added: `e' = L e + δ(‖x‖ + e)`. A sum of m parts adds `γ_{m−1}` times the sizes
    of its parts, a scale two roundings.
    """
    dtype = dtype_of(net) if dtype is None else dtype
    return total(_through(net, tree, Computed(radius, 0.0, source), slope_of, dtype).error)


def dtype_of(net: Module) -> torch.dtype:
    """The coarsest dtype among the weights; torch's default without weights."""
    types = {parameter.dtype for parameter in net.parameters()} or {torch.get_default_dtype()}
    return max(types, key=lambda each: torch.finfo(each).eps)


def own_rounding(net: Module, leaf: Leaf, radius: Radius, dtype: torch.dtype) -> float:
    """A bound on what the leaf alone rounds for inputs of norm at most `radius`, underflow aside."""
    module = module_at(net, leaf)
    if module is None:
        return 0.0 if leaf.identity else math.inf
    if leaf.signature.source is None and isinstance(radius, tuple):
        return math.fsum(own_rounding(net, leaf, part, dtype) for part in radius)
    return module.rounding_within(radius, dtype)


def _through(
    net: Module, tree: Tree, x: Computed, slope_of: SlopeOf, dtype: torch.dtype
) -> Computed:
    eps = torch.finfo(dtype).eps
    match tree:
        case Leaf():
            return _leaf(net, tree, x, slope_of, dtype)
        case Scale():
            part = _through(net, tree.part, x, slope_of, dtype)
            # The factor is rounded to the dtype, and so is the product.
            own = 2 * eps * abs(tree.factor) + torch.finfo(dtype).tiny
            tiny = _underflow(part.space, part.space, dtype)
            rounding = mapped(lambda size: times(own, size) + tiny, part.reach)
            error = added((scaled(tree.factor, part.error), rounding))
            return Computed(scaled(tree.factor, part.size), error, part.space)
        case Series():
            for part in tree.parts:
                x = _through(net, part, x, slope_of, dtype)
            return x
        case Sum():
            parts = [_through(net, part, x, slope_of, dtype) for part in tree.parts]
            terms = (len(parts) - 1) * eps
            gamma = terms / (1 - terms) if terms < 1 else math.inf
            rounding = scaled(gamma, added([part.reach for part in parts]))
            error = added([*(part.error for part in parts), rounding])
            return Computed(added([part.size for part in parts]), error, parts[0].space)
        case Parallel():
            parts = [_through(net, part, x, slope_of, dtype) for part in tree.parts]
            return _side_by_side(parts)


def _leaf(net: Module, leaf: Leaf, x: Computed, slope_of: SlopeOf, dtype: torch.dtype) -> Computed:
    if leaf.signature.source is None and isinstance(x.space, ProductSpace):
        sizes, errors = (each_of(each, len(x.space.parts)) for each in (x.size, x.error))
        found = [
            _leaf(net, leaf, Computed(size, error, space), slope_of, dtype)
            for size, error, space in zip(sizes, errors, x.space.parts, strict=True)
        ]
        return _side_by_side(found)
    # The slope between the exact and the computed input, both within this radius.
    bound = partial(slope_of, leaf)
    slope = leaf.slope(x.reach, bound)
    target = substitute(leaf.signature.target, x.space)
    rounding = own_rounding(net, leaf, x.reach, dtype)
    if rounding > 0:
        rounding += _underflow(x.space, target, dtype)
    size = leaf.reach(x.size, lambda _: slope)
    return Computed(size, times(slope, total(x.error)) + rounding, target)


def _side_by_side(parts: list[Computed]) -> Computed:
    return Computed(
        tuple(part.size for part in parts),
        tuple(part.error for part in parts),
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
