"""The parameter groups of a network: one group a geometry, with each weight's share of the learning rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modular_manifolds.errors import UnconstrainedParameterError
from modular_manifolds.nn.composed import Weighted
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.network import check_network, check_values, check_weights
from modular_manifolds.optim.weight import Weight


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


def geometries_of(net: Weighted) -> dict[str, Geometry]:
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
    """One group a geometry: `params`, `param_names`, `shapes`, `shares`, `manifold` and `norm`.

    Groups stand in the order of their first weight in the budget, and weights inside a group in the budget's order.
    """
    net = network_of(net)
    parameters, geometries = dict(net.named_parameters()), dict(net.geometries())
    groups: dict[Geometry, dict[str, Any]] = {}
    for row in net.budget().rows:
        geometry = geometries[row.path]
        if geometry not in groups:
            groups[geometry] = {
                "params": [],
                "param_names": [],
                "shapes": [],
                "shares": [],
                **geometry_values(geometry),
            }
        group, parameter = groups[geometry], parameters[row.path]
        group["params"].append(parameter)
        group["param_names"].append(row.path)
        group["shapes"].append(list(parameter.shape))
        group["shares"].append(row.share)
    return list(groups.values())


def geometry_values(geometry: Geometry) -> dict[str, Any]:
    """The `manifold` and `norm` of a group, as values that JSON can hold."""
    return {"manifold": geometry.manifold.values(), "norm": geometry.norm.values()}


def weights_in(
    groups: Sequence[Mapping[str, Any]], geometries: Mapping[str, Geometry]
) -> Iterator[Weight]:
    """Every weight of the groups, in their order."""
    index = 0
    for number, group in enumerate(groups):
        for place, (name, parameter) in enumerate(
            zip(group["param_names"], group["params"], strict=True)
        ):
            yield Weight(name, parameter, geometries[name], number, place, index)
            index += 1
