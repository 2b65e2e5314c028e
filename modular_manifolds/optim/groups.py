"""The parameter groups of a network: one group a weight, with its share of the learning rate."""

from __future__ import annotations

from typing import Any

from modular_manifolds.errors import UnconstrainedParameterError
from modular_manifolds.nn.composed import Weighted
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.network import check_network, check_values, check_weights


def network_of(net: Weighted) -> Weighted:
    """The network inside torch's wrappers, whose weights can be stepped.

    Raises:
        ArgumentError: `net` is not `Weighted`, or one of its weights has no values or is computed from
        others. SharedWeightError: a weight stands at two places.
    """
    network = check_network(net, argument="SteepestDescent(net)")
    check_weights(network, argument="SteepestDescent(net)")
    check_values(network, argument="SteepestDescent(net)")
    return network


def weights_of(net: Weighted) -> dict[str, Geometry]:
    """The geometry of every parameter of `net`, by path.

    Raises:
        ArgumentError: `net` is not `Weighted`. UnconstrainedParameterError: a parameter
        has no manifold; the message names it.
    """
    net = network_of(net)
    geometries = dict(net.geometries())
    for path, _ in net.named_parameters():
        if path not in geometries:
            raise UnconstrainedParameterError(
                f"parameter '{path}'",
                "must have a manifold and a norm",
                "neither",
                "Make it the weight of an mm.Atom, or keep it out of the network as a buffer.",
            )
    return geometries


def groups_of(net: Weighted) -> list[dict[str, Any]]:
    """One parameter group a weight: `params`, `name`, `shape` and `share`, in the order of the budget."""
    net = network_of(net)
    parameters = dict(net.named_parameters())
    rows = net.budget().rows
    return [
        {
            "params": [parameters[row.path]],
            "name": row.path,
            "shape": list(parameters[row.path].shape),
            "share": row.share,
        }
        for row in rows
    ]
