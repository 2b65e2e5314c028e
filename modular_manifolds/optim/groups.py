"""The parameter groups of a network: one for each geometry, with each weight's share of the learning rate."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modular_manifolds.errors import UnconstrainedParameterError
from modular_manifolds.nn.composed import Adapted, Weighted
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.network import check_network, check_values, check_weights
from modular_manifolds.nn.piece import Piece, logical_name
from modular_manifolds.optim.weight import Weight

Group = Mapping[str, Any]
Values = dict[str, Any]


def network_of(net: Weighted) -> Weighted:
    """The network inside torch's wrappers, after checks that its weights can be stepped.

    Raises:
        ArgumentError: `net` is not `Weighted`, or one of its weights has no values or is computed
            from others.
        SharedWeightError: a weight stands at two places.
    """
    network = check_network(net, argument="SteepestDescent(net)")
    check_weights(network, argument="SteepestDescent(net)")
    check_values(network, argument="SteepestDescent(net)")
    return network


def geometries_of(net: Weighted) -> dict[str, Geometry]:
    """The geometry of every logical matrix of `net`, by its name.

    Raises:
        ArgumentError: `net` is not `Weighted`.
        UnconstrainedParameterError: a parameter has no manifold and no other optimiser; the message
            names it.
    """
    net = network_of(net)
    geometries = dict(net.geometries())
    claimed = set(geometries)
    if isinstance(net, Adapted):
        claimed |= {path for path, _ in net.pieces().values()} | set(net.fallbacks())
    for path, _ in net.named_parameters():
        if path not in claimed:
            raise UnconstrainedParameterError(
                f"parameter '{path}'",
                "must have a manifold and a norm",
                "neither",
                "Make it the weight of an mm.Atom, or keep it out of the network as a buffer.",
            )
    return geometries


def groups_of(net: Weighted) -> list[dict[str, Any]]:
    """One group for each geometry, with `params`, `param_names`, `shapes`, `shares`, `manifold` and `norm`.

    Groups and their weights follow the order of the budget. If a parameter holds several logical matrices, `pieces` gives
    their positions, and its entry of `shares` has one share for each. Groups of other optimisers come last.
    """
    net = network_of(net)
    parameters, geometries = dict(net.named_parameters()), dict(net.geometries())
    pieces = dict(net.pieces()) if isinstance(net, Adapted) else {}
    matrices: dict[str, list[tuple[Geometry, Piece | None, float]]] = {}
    for row in net.budget().rows:
        path, piece = pieces.get(row.path, (row.path, None))
        matrices.setdefault(path, []).append((geometries[row.path], piece, row.share))
    groups: dict[tuple[Geometry, ...], dict[str, Any]] = {}
    for path, parts in matrices.items():
        key = tuple(geometry for geometry, _, _ in parts)
        key = key[:1] if len(set(key)) == 1 else key
        if key not in groups:
            groups[key] = {
                "params": [],
                "param_names": [],
                "shapes": [],
                "shares": [],
                **geometry_values(key),
            }
            if pieces:
                groups[key]["pieces"] = []
        group, parameter = groups[key], parameters[path]
        group["params"].append(parameter)
        group["param_names"].append(path)
        group["shapes"].append(list(parameter.shape))
        shares = [share for _, _, share in parts]
        group["shares"].append(shares[0] if len(shares) == 1 else shares)
        if pieces:
            values = [piece.values() for _, piece, _ in parts if piece is not None]
            group["pieces"].append(values or None)
    return [*groups.values(), *_fallback_groups(net, parameters)]


def _fallback_groups(net: Weighted, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups of the weights that another optimiser steps, one for each combination of settings."""
    groups: list[tuple[Mapping[str, Any], dict[str, Any]]] = []
    for path, settings in (net.fallbacks() if isinstance(net, Adapted) else {}).items():
        group = next((group for known, group in groups if known == settings), None)
        if group is None:
            group = {"params": [], "param_names": [], "shapes": [], **settings}
            groups.append((settings, group))
        group["params"].append(parameters[path])
        group["param_names"].append(path)
        group["shapes"].append(list(parameters[path].shape))
    return [group for _, group in groups]


def geometry_values(geometries: Sequence[Geometry]) -> dict[str, Any]:
    """The `manifold` and `norm` of a group as JSON values: lists if the pieces differ."""
    manifolds = [each.manifold.values() for each in geometries]
    norms = [each.norm.values() for each in geometries]
    if len(geometries) == 1:
        return {"manifold": manifolds[0], "norm": norms[0]}
    return {"manifold": manifolds, "norm": norms}


def own_values(group: Group) -> Values:
    """A group with copies of its lists and dictionaries."""
    return {
        key: copy.deepcopy(value) if isinstance(value, list | dict) else value
        for key, value in group.items()
    }


def is_fallback(group: Group) -> bool:
    """Whether another optimiser steps the weights of this group."""
    return "optimizer" in group


def pieces_in(group: Group, place: int) -> tuple[Piece | None, ...]:
    """The pieces of one parameter of a group; (None,) for a whole parameter."""
    pieces = group.get("pieces")
    if not pieces or not pieces[place]:
        return (None,)
    return tuple(Piece.from_values(each) for each in pieces[place])


def names_in(group: Group) -> list[str]:
    """The names of the logical matrices of a group."""
    if not group.get("pieces"):
        return list(group["param_names"])
    return [
        logical_name(path, piece)
        for place, path in enumerate(group["param_names"])
        for piece in pieces_in(group, place)
    ]


def shares_in(group: Group) -> list[Any]:
    """The shares of the logical matrices of a group."""
    flat: list[Any] = []
    for share in group["shares"]:
        flat.extend(share) if isinstance(share, list | tuple) else flat.append(share)
    return flat


def weights_in(groups: Sequence[Group], geometries: Mapping[str, Geometry]) -> Iterator[Weight]:
    """Every logical matrix of the groups, in their order."""
    index = 0
    for number, group in enumerate(groups):
        if is_fallback(group):
            continue
        for place, (path, parameter) in enumerate(
            zip(group["param_names"], group["params"], strict=True)
        ):
            for slot, piece in enumerate(pieces_in(group, place)):
                name = logical_name(path, piece)
                yield Weight(
                    name, parameter, geometries[name], number, place, index, path, piece, slot
                )
                index += 1
