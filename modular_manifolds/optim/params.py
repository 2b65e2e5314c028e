"""The optimiser's `params` as parameter groups with geometries: from a network, an adapted model, or torch's forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from modular_manifolds.errors import ArgumentError, ShapeError
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.nn.composed import Weighted
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.piece import Piece, logical_name
from modular_manifolds.nn.sharded import refuse_flat, whole
from modular_manifolds.norms.base import Norm
from modular_manifolds.optim.groups import (
    geometries_of,
    geometry_values,
    groups_of,
    is_fallback,
    names_in,
)
from modular_manifolds.optim.torch_params import ARGUMENT, as_groups, names_and_tensors
from modular_manifolds.wrappers import unwrapped

MAX_OFF_MANIFOLD_RELATIVE: Final = 1e-3
"""The largest accepted residual of a weight, relative to the radius: the first step would silently move a weight farther off."""


@dataclass(frozen=True)
class GroupsAndGeometries:
    """The parameter groups of an optimiser, and the geometries of its weights.

    Args:
        groups: parameter groups, with the geometry as JSON-able values.
        geometries: the geometry of each logical matrix, by name.
    """

    groups: list[dict[str, Any]]
    geometries: dict[str, Geometry]


def groups_from_params(params: Any) -> GroupsAndGeometries:
    """Make the groups from the constructor's `params`.

    Raises:
        ArgumentError: `params` has no known form, or a group lacks a geometry; the message gives the remedy.
    """
    net = unwrapped(params)
    if isinstance(net, nn.Module) or hasattr(net, "geometries"):
        refuse_flat(net, argument="SteepestDescent(net)")
        if isinstance(net, nn.Module) and not isinstance(net, Weighted):
            raise ArgumentError(
                "SteepestDescent(net)",
                "must be a network of this library, a plan, or parameters",
                type(net).__name__,
                "Call mm.SteepestDescent(mm.adapt(model), lr=0.1): a plan says which geometry each weight has.",
            )
        groups, geometries = groups_of(params), geometries_of(params)
        if not groups:
            raise ArgumentError(
                "SteepestDescent(net)",
                "must have a weight",
                "none",
                "Add an atom such as mm.Linear.",
            )
        return GroupsAndGeometries(groups, geometries)
    groups: list[dict[str, Any]] = []
    geometries: dict[str, Geometry] = {}
    for index, group in enumerate(as_groups(params)):
        complete, new_geometries = group_with_geometry(group, index=index)
        _refuse_duplicates(geometries, new_geometries)
        groups.append(complete)
        geometries.update(new_geometries)
    return GroupsAndGeometries(groups, geometries)


def group_with_geometry(
    group: Mapping[str, Any], *, index: int, argument: str = ARGUMENT
) -> tuple[dict[str, Any], dict[str, Geometry]]:
    """One group in the optimiser's own form, and the geometries of its logical matrices.

    Args:
        group: `params` (tensors, or pairs of a name and a tensor), and either `manifold` and `norm`, or `optimizer="adamw"`
            and `lr`. Optional: `share` or `shares`, `split`, and settings of the optimiser.
        index: the position of the group, which names parameters without a name.
        argument: the caller's name of the argument, for errors.

    Raises:
        ArgumentError: a key is missing or has a wrong value; the message names the group and the parameter.
    """
    where = f"{argument}: group {index}"
    complete = dict(group)
    names, tensors = names_and_tensors(
        complete.pop("params", None), complete.pop("param_names", None), index, where
    )
    complete.update(params=tensors, param_names=names)
    complete["shapes"] = [list(each.shape) for each in tensors]
    if is_fallback(complete):
        if "lr" not in complete:
            raise ArgumentError(
                where,
                "needs its own lr, because AdamW's rate has another unit",
                "no lr",
                "Add 'lr': 3e-4 to the group.",
            )
        return complete, {}
    for key, kind, example in (("manifold", Manifold, "Stiefel()"), ("norm", Norm, "Spectral()")):
        if not isinstance(complete.get(key), kind):
            raise ArgumentError(
                where,
                f"must have a {key}",
                repr(complete[key]) if key in complete else f"no {key}",
                f"Write {{'params': ..., '{key}': mm.{example}}}, or 'optimizer': 'adamw' with its own lr; "
                "mm.adapt(model) chooses for every weight of a model.",
            )
    geometry = Geometry(complete["manifold"], complete["norm"])
    split = complete.pop("split", None)
    pieces_by_tensor = [
        _pieces(each, name, split, where) for each, name in zip(tensors, names, strict=True)
    ]
    complete["shares"] = _shares(complete, pieces_by_tensor, where)
    if split is not None:
        complete["pieces"] = [
            [each.values() for each in pieces] or None for pieces in pieces_by_tensor
        ]
    complete.update(geometry_values([geometry]))
    geometries: dict[str, Geometry] = {}
    for name, tensor, pieces in zip(names, tensors, pieces_by_tensor, strict=True):
        for piece in pieces or (None,):
            logical = logical_name(name, piece)
            _check_point(geometry, tensor, piece, f"{where}: '{logical}'")
            geometries[logical] = geometry
    return complete, geometries


def later_group(
    group: dict[str, Any],
    geometries: Mapping[str, Geometry],
    shares: Mapping[str, Any],
    *,
    index: int,
) -> tuple[dict[str, Any], dict[str, Geometry]]:
    """A group for `add_param_group`, and the geometries of its new weights. The group may name weights of the optimiser.

    Raises:
        ArgumentError: the group has no geometry, and names a weight without one.
    """
    argument = "add_param_group(param_group)"
    if is_fallback(group) or isinstance(group.get("manifold"), Manifold):
        return group_with_geometry(group, index=index, argument=argument)
    for name in names_in(group) if "param_names" in group else [None]:
        if name not in geometries:
            raise ArgumentError(
                argument,
                f"must have a manifold and a norm, or param_names among {', '.join(geometries)}",
                repr(name),
                "Declare the weight in the network, and build the optimizer on the whole network.",
            )
    names, known = list(group["param_names"]), names_in(group)
    tensors = [group["params"]] if isinstance(group["params"], Tensor) else group["params"]
    group["params"] = list(tensors)
    group.setdefault("shapes", [list(each.shape) for each in group["params"]])
    group.setdefault("shares", [shares[name] for name in names])
    for key, value in geometry_values([geometries[known[0]]]).items():
        group.setdefault(key, value)
    return group, {}


def _pieces(tensor: Tensor, name: str, split: Any, where: str) -> tuple[Piece, ...]:
    """The pieces of a tensor; empty for a whole tensor."""
    if split is not None:
        return tuple(split.pieces(tuple(tensor.shape)))
    if tensor.dim() > 2:
        raise ShapeError(
            f"{where}: '{name}'",
            "must be a vector or a matrix, or have a split into matrices",
            tuple(tensor.shape),
            "Add 'split': mm.Split(experts=True) for a stack of matrices, or let mm.adapt(model) read convolutions and "
            "fused weights.",
        )
    return ()


def _shares(
    group: dict[str, Any], pieces_by_tensor: Sequence[Sequence[Piece]], where: str
) -> list[Any]:
    """The share of each parameter: a number, or a list with one for each piece."""
    if "share" in group and "shares" in group:
        raise ArgumentError(
            where, "must have share or shares", "both", "Write one share for the whole group."
        )
    if "shares" in group:
        return list(group["shares"])
    share = group.pop("share", 1.0)
    return [[share] * len(pieces) if len(pieces) > 1 else share for pieces in pieces_by_tensor]


def _check_point(geometry: Geometry, tensor: Tensor, piece: Piece | None, where: str) -> None:
    """Refuse a wrong shape, a piece that cannot be a view, and a weight off its manifold."""
    shape = tuple(tensor.shape)
    if piece is not None:
        try:
            piece.view(torch.empty(shape, device="meta")).view(piece.shape)
        except RuntimeError:
            raise ShapeError(
                where,
                "must lie in its tensor with rows and columns next to each other",
                shape,
                "Choose a split that cuts along one dimension.",
            ) from None
    geometry.manifold.check_shape(shape if piece is None else piece.shape, argument=where)
    if not (tensor.is_floating_point() and geometry.manifold.compact):
        return
    stored = whole(tensor.detach())
    point = stored if piece is None else piece.read(stored)
    residual = float(geometry.manifold.residual(point).amax())
    if not residual <= MAX_OFF_MANIFOLD_RELATIVE:
        raise ArgumentError(
            where,
            f"must be on {geometry.manifold} to {MAX_OFF_MANIFOLD_RELATIVE:g}",
            f"a weight {residual:.3g} off it",
            "Project it first: p.data.copy_(manifold.project(p.data)). A trained weight is better kept on a manifold that "
            "goes through it, such as mm.SpectralBall(radius) or mm.Sphere(radius).",
        )


def _refuse_duplicates(known: Mapping[str, Geometry], new: Mapping[str, Geometry]) -> None:
    for name in new:
        if name in known:
            raise ArgumentError(
                ARGUMENT,
                "must name every parameter once",
                f"'{name}' in two groups",
                "Pass each parameter in one group.",
            )
