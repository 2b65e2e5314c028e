"""The two bounds of a whole network, declared and certified: what needs no search."""

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
    """Bounds on the slope from one norm to another, and what they were made of.

    Args:
        declared: holds on the product manifold.
        certified: holds for the weights as they are now.
        promised: the same leaf by leaf, in the norms of the leaves' own spaces.
        proved: the same leaf by leaf, in the norms of the leaves' own spaces.
        arriving: the bound on the inputs' norm in the network's own space.
    """

    declared: float
    certified: float
    promised: Propagation
    proved: Propagation
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
        SpaceError: as `one_space_to_another`.
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
        SpaceError: as `one_space_to_another`.
    """
    source, target = one_space_to_another(tree, "lipschitz(net)")
    before = conversion(input_norm, source.norm, source.size)
    after = conversion(target.norm, output_norm, target.size)
    arriving = math.inf if radius is None else before * radius
    promised = propagate(tree, source, arriving, Leaf.lipschitz_within)
    proved = propagate(as_it_is(tree), source, arriving, Leaf.certified_within, matrix_of)
    certified = before * after * proved.slope * rounding_up(proved)
    if certified == 0 and all(each.slope > 0 for each in proved.passages):
        # A product of positive bounds that underflows is rounded up.
        certified = math.ulp(0.0)
    return Bounds(
        declared=before * after * promised.slope,
        certified=certified,
        promised=promised,
        proved=proved,
        arriving=arriving,
    )


def rounding_up(proved: Propagation) -> float:
    """More than one, by more than the arithmetic of the bounds themselves may have lost."""
    return 1 + (len(proved.passages) + 4) * 2.0**-50


def one_space_to_another(tree: Tree, argument: str) -> tuple[Space, Space]:
    """The two spaces of a network that maps vectors to vectors.

    Raises:
        SpaceError: the network takes any space, or takes or gives a tuple.
    """
    source, target = tree.signature.source, tree.signature.target
    if not isinstance(source, Space) or not isinstance(target, Space):
        raise SpaceError(
            argument,
            "must map one space to one space",
            f"{source or 'any space'} to {target}",
            "Put an atom such as mm.Linear in front, or join the parts of the tuple with a sum.",
        )
    return source, target


def check_radius(radius: float, *, argument: str = "radius") -> float:
    """Give back a radius, or refuse one that is not finite and positive."""
    remedy = "Pass the largest norm of the inputs, or leave it out."
    return check_number(radius, POSITIVE, argument=argument, remedy=remedy)
