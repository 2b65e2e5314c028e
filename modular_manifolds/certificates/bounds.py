"""The two bounds of a whole network, declared and certified: what needs no search."""

from __future__ import annotations

import math
from dataclasses import dataclass

from modular_manifolds.arguments import POSITIVE, check_number
from modular_manifolds.certificates.leaves import Certified, declared
from modular_manifolds.certificates.propagation import Propagation, propagate
from modular_manifolds.composition.space import Space, VectorNorm, conversion
from modular_manifolds.composition.tree import Tree
from modular_manifolds.errors import SpaceError
from modular_manifolds.nn.module import Module
from modular_manifolds.nn.network import check_network, check_values


@dataclass(frozen=True)
class Bounds:
    """Bounds on the slope from one norm to another, and what they were made of.

    Args:
        declared: holds on the product manifold.
        certified: holds for the weights as they are, `now`.
        promised, proved: the same leaf by leaf, in the norms of the leaves' own spaces.
        arriving: the bound on the inputs' norm in the network's own space.
    """

    declared: float
    certified: float
    promised: Propagation
    proved: Propagation
    now: Certified
    arriving: float


def bounds(
    net: Module,
    *,
    input_norm: VectorNorm,
    output_norm: VectorNorm,
    radius: float | None = None,
) -> Bounds:
    """Bound the slope of `net` between two norms, for inputs within `radius` or for all.

    Raises:
        ArgumentError, SpaceError: as `one_space_to_another`.
    """
    net = check_network(net, argument="lipschitz(net)")
    check_values(net, argument="lipschitz(net)")
    tree, source, target = one_space_to_another(net, "lipschitz(net)")
    before = conversion(input_norm, source.norm, source.size)
    after = conversion(target.norm, output_norm, target.size)
    arriving = math.inf if radius is None else before * radius
    now = Certified(net)
    promised = propagate(tree, source, arriving, declared)
    proved = propagate(now.tree(tree), source, arriving, now.slope, now.matrix)
    certified = before * after * proved.slope * rounding_up(proved)
    if certified == 0 and all(each.slope > 0 for each in proved.passages):
        # A product of positive bounds that underflows is rounded up.
        certified = math.ulp(0.0)
    return Bounds(
        declared=before * after * promised.slope,
        certified=certified,
        promised=promised,
        proved=proved,
        now=now,
        arriving=arriving,
    )


def rounding_up(proved: Propagation) -> float:
    """More than one, by more than the arithmetic of the bounds themselves may have lost."""
    return 1 + (len(proved.passages) + 4) * 2.0**-50


def one_space_to_another(net: Module, argument: str) -> tuple[Tree, Space, Space]:
    """The tree of a network that maps vectors to vectors, and its two spaces.

    Raises:
        ArgumentError: `net` is not a module of this library. SpaceError: the network takes any space,
        or takes or gives a tuple.
    """
    tree = check_network(net, argument=argument).tree()
    source, target = tree.signature.source, tree.signature.target
    if not isinstance(source, Space) or not isinstance(target, Space):
        raise SpaceError(
            argument,
            "must map one space to one space",
            f"{source or 'any space'} to {target}",
            "Put an atom such as mm.Linear in front, or join the parts of the tuple with a sum.",
        )
    return tree, source, target


def check_radius(radius: float, *, argument: str = "radius") -> float:
    """Give back a radius, or refuse one that is not finite and positive."""
    remedy = "Pass the largest norm of the inputs, or leave it out."
    return check_number(radius, POSITIVE, argument=argument, remedy=remedy)
