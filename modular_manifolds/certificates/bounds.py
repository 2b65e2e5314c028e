"""The declared and the certified bound of a whole network, without a search for slopes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from modular_manifolds.arguments import POSITIVE, check_number
from modular_manifolds.certificates.linear_map import matrix_of
from modular_manifolds.certificates.propagation import Propagation, propagate
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.space import Space, VectorNorm, conversion
from modular_manifolds.composition.tree import Tree, as_it_is
from modular_manifolds.errors import SpaceError
from modular_manifolds.nn.composed import Composed
from modular_manifolds.nn.network import check_composed, check_values


@dataclass(frozen=True)
class Bounds:
    """Bounds on the slope of a network from one norm to another.

    Args:
        declared: the bound on the whole product manifold.
        certified: the bound for the current weights.
        declared_propagation: the declared bound at each leaf, in the norms of its own spaces.
        certified_propagation: the certified bound at each leaf, in the same norms.
        arriving: the bound on the norm of the inputs, in the network's own space.
    """

    declared: float
    certified: float
    declared_propagation: Propagation
    certified_propagation: Propagation
    arriving: float


def bounds(
    net: Composed,
    *,
    input_norm: VectorNorm,
    output_norm: VectorNorm,
    radius: float | None = None,
) -> Bounds:
    """Bound the slope of `net` between two norms, for inputs within `radius` or for all.

    Raises:
        ArgumentError: `net` is not `Composed`, or a weight has no values.
        SpaceError: as `endpoint_spaces`.
    """
    network = check_composed(net, argument="lipschitz(net)")
    check_values(network, argument="lipschitz(net)")
    return bounds_of(network.tree(), input_norm=input_norm, output_norm=output_norm, radius=radius)


def bounds_of(
    tree: Tree,
    *,
    input_norm: VectorNorm,
    output_norm: VectorNorm,
    radius: float | None = None,
) -> Bounds:
    """Bound the slope of the network of `tree` between two norms, for inputs within `radius` or for all.

    Raises:
        SpaceError: as `endpoint_spaces`.
    """
    source, target = endpoint_spaces(tree, "lipschitz(net)")
    before = conversion(input_norm, source.norm, source.size)
    after = conversion(target.norm, output_norm, target.size)
    arriving = math.inf if radius is None else before * radius
    declared = propagate(tree, source, arriving, Leaf.lipschitz_within)
    current = propagate(as_it_is(tree), source, arriving, Leaf.certified_within, matrix_of)
    certified = before * after * current.slope * rounding_factor(current)
    if certified == 0 and all(each.slope > 0 for each in current.passages):
        # Round up if a product of positive bounds underflows.
        certified = math.ulp(0.0)
    return Bounds(
        declared=before * after * declared.slope,
        certified=certified,
        declared_propagation=declared,
        certified_propagation=current,
        arriving=arriving,
    )


def rounding_factor(propagation: Propagation) -> float:
    """A factor above 1 that covers the rounding errors in the computation of the bounds."""
    return 1 + (len(propagation.passages) + 4) * 2.0**-50


def endpoint_spaces(tree: Tree, argument: str) -> tuple[Space, Space]:
    """The input space and the output space of a network from vectors to vectors.

    Raises:
        SpaceError: the network takes any space, or takes or gives a tuple.
    """
    source, target = tree.signature.source, tree.signature.target
    if not isinstance(source, Space) or not isinstance(target, Space):
        raise SpaceError(
            argument,
            "must map one space to one space",
            f"{source or 'any space'} to {target}",
            "Put an atom such as mm.Linear in front, or add the parts of the tuple.",
        )
    return source, target


def check_radius(radius: float, *, argument: str = "radius") -> float:
    """Check that a radius is finite and positive, and return it."""
    remedy = "Pass the largest norm of the inputs, or leave it out."
    return check_number(radius, POSITIVE, argument=argument, remedy=remedy)
