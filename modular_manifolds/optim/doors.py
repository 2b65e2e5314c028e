"""The three doors of the optimiser: a declared network, an adapted model, or parameters in groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from modular_manifolds.errors import ArgumentError, ShapeError
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.nn.composed import Weighted
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.piece import Piece, logical_name
from modular_manifolds.norms.base import Norm
from modular_manifolds.optim.groups import (
    geometries_of,
    geometry_values,
    groups_of,
    is_other,
    names_in,
)
from modular_manifolds.wrappers import unwrapped

ARGUMENT: Final = "SteepestDescent(params)"
FAR: Final = 1e-3
"""A weight farther off its manifold than this, relative to the radius, would be moved by the first step without a word."""


@dataclass(frozen=True)
class Opened:
    """The groups and geometries that an optimiser is built on.

    Args:
        groups: parameter groups, with the geometry as JSON-able values.
        geometries: the geometry of each logical matrix, by name.
    """

    groups: list[dict[str, Any]]
    geometries: dict[str, Geometry]


def opened(params: Any) -> Opened:
    """Look at what was passed, and make the groups of it.

    Raises:
        ArgumentError: it is none of the three, or a group lacks a geometry; the message says what to write.
    """
    inside = unwrapped(params)
    if isinstance(inside, nn.Module) or hasattr(inside, "geometries"):
        if isinstance(inside, nn.Module) and not isinstance(inside, Weighted):
            raise ArgumentError(
                "SteepestDescent(net)",
                "must be a network of this library, a plan, or parameters",
                type(inside).__name__,
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
        return Opened(groups, geometries)
    groups: list[dict[str, Any]] = []
    geometries: dict[str, Geometry] = {}
    for index, group in enumerate(as_groups(params)):
        made, found = geometric(group, index=index)
        _refuse_twice(geometries, found)
        groups.append(made)
        geometries.update(found)
    return Opened(groups, geometries)


def geometric(
    group: Mapping[str, Any], *, index: int, argument: str = ARGUMENT
) -> tuple[dict[str, Any], dict[str, Geometry]]:
    """One group of parameters in the optimiser's own form, and the geometries of its logical matrices.

    Args:
        group: `params`, tensors or pairs of a name and a tensor; then `manifold` and `norm`, or `optimizer="adamw"` and
            `lr`; and, if wanted, `share` or `shares`, `split`, and settings of the optimiser.
        index: the place of the group, for names of parameters without one.
        argument: the name that the caller wrote, for errors.

    Raises:
        ArgumentError: something is missing or does not fit; the message names the group and the parameter.
    """
    where = f"{argument}: group {index}"
    made = dict(group)
    names, tensors = named(made.pop("params", None), made.pop("param_names", None), index, where)
    made.update(params=tensors, param_names=names)
    made["shapes"] = [list(each.shape) for each in tensors]
    if is_other(made):
        if "lr" not in made:
            raise ArgumentError(
                where,
                "needs its own lr, because AdamW's rate has another unit",
                "no lr",
                "Add 'lr': 3e-4 to the group.",
            )
        return made, {}
    for key, kind, example in (("manifold", Manifold, "Stiefel()"), ("norm", Norm, "Spectral()")):
        if not isinstance(made.get(key), kind):
            raise ArgumentError(
                where,
                f"must have a {key}",
                repr(made[key]) if key in made else f"no {key}",
                f"Write {{'params': ..., '{key}': mm.{example}}}, or 'optimizer': 'adamw' with its own lr; "
                "mm.adapt(model) chooses for every weight of a model.",
            )
    geometry = Geometry(made["manifold"], made["norm"])
    split = made.pop("split", None)
    cut = [_pieces(each, name, split, where) for each, name in zip(tensors, names, strict=True)]
    made["shares"] = _shares(made, cut, where)
    if split is not None:
        made["pieces"] = [[each.values() for each in pieces] or None for pieces in cut]
    made.update(geometry_values([geometry]))
    found: dict[str, Geometry] = {}
    for name, tensor, pieces in zip(names, tensors, cut, strict=True):
        for piece in pieces or (None,):
            logical = logical_name(name, piece)
            _check_point(geometry, tensor.detach(), piece, f"{where}: '{logical}'")
            found[logical] = geometry
    return made, found


def added(
    group: dict[str, Any],
    geometries: Mapping[str, Geometry],
    shares: Mapping[str, Any],
    *,
    index: int,
) -> tuple[dict[str, Any], dict[str, Geometry]]:
    """A group that comes later, and the geometries of its new weights; it may name weights that the optimiser knows.

    Raises:
        ArgumentError: the group has no geometry and names no weight that has one.
    """
    argument = "add_param_group(param_group)"
    if is_other(group) or isinstance(group.get("manifold"), Manifold):
        return geometric(group, index=index, argument=argument)
    for name in names_in(group) if "param_names" in group else [None]:
        if name not in geometries:
            raise ArgumentError(
                argument,
                f"must have a manifold and a norm, or param_names among {', '.join(geometries)}",
                repr(name),
                "Declare the weight in the network and build the optimizer on the whole of it.",
            )
    names, known = list(group["param_names"]), names_in(group)
    tensors = [group["params"]] if isinstance(group["params"], Tensor) else group["params"]
    group["params"] = list(tensors)
    group.setdefault("shapes", [list(each.shape) for each in group["params"]])
    group.setdefault("shares", [shares[name] for name in names])
    for key, value in geometry_values([geometries[known[0]]]).items():
        group.setdefault(key, value)
    return group, {}


def as_groups(params: Any, *, argument: str = ARGUMENT) -> list[dict[str, Any]]:
    """The groups of what a torch optimiser takes: parameters, named ones, or groups.

    Raises:
        ArgumentError: it is none of these, or empty.
    """
    if isinstance(params, Tensor):
        return [{"params": [params]}]
    if not isinstance(params, Iterable) or isinstance(params, str | Mapping | set):
        raise ArgumentError(
            argument,
            "must be a network, a plan, or an ordered list of parameters or groups",
            f"a {type(params).__name__}",
            "Pass mm.adapt(model), or [{'params': ..., 'manifold': mm.Stiefel(), 'norm': mm.Spectral()}].",
        )
    given = list(params)
    if not given:
        raise ArgumentError(
            argument,
            "must have a parameter",
            "an empty list (a generator that was used before is empty)",
            "Pass list(model.parameters()).",
        )
    if all(isinstance(each, Mapping) for each in given):
        return [dict(each) for each in given]
    return [{"params": given}]


def named(params: Any, names: Any, index: int, where: str) -> tuple[list[str], list[Tensor]]:
    """The names and tensors of a group. A parameter without a name is called after its place."""
    given = [params] if isinstance(params, Tensor) else params
    if not isinstance(given, Iterable) or isinstance(given, set | str):
        raise ArgumentError(
            where,
            "must have an ordered list of params",
            f"{type(params).__name__}" if params is not None else "no params",
            "Pass a list: the order of a set changes between runs.",
        )
    found: list[tuple[str, Tensor]] = []
    for place, each in enumerate(given):
        pair = isinstance(each, tuple) and len(each) == 2
        name, tensor = each if pair else (f"param_groups[{index}][{place}]", each)
        if not isinstance(tensor, Tensor):
            raise ArgumentError(
                where,
                "must hold tensors, or pairs of a name and a tensor",
                type(tensor).__name__,
                "Pass model.parameters() or model.named_parameters().",
            )
        if tensor.is_meta:
            raise ArgumentError(
                where,
                "must hold parameters with values",
                f"'{name}' on the meta device",
                "Call model.to_empty(device=...) and load or draw its values first.",
            )
        found.append((str(name), tensor))
    if not found:
        raise ArgumentError(
            where,
            "must have a parameter",
            "none (a generator that was used before is empty)",
            "Pass list(model.parameters()), or leave the group out.",
        )
    if names is not None:
        if len(names) != len(found):
            raise ArgumentError(
                where,
                f"must have a name for each of its {len(found)} parameters",
                len(names),
                "Leave param_names out, or pass model.named_parameters().",
            )
        found = [(str(name), tensor) for name, (_, tensor) in zip(names, found, strict=True)]
    return [name for name, _ in found], [tensor for _, tensor in found]


def _pieces(tensor: Tensor, name: str, split: Any, where: str) -> tuple[Piece, ...]:
    """The pieces of a tensor; none for the whole of it."""
    if split is not None:
        return tuple(split.pieces(tuple(tensor.shape)))
    if tensor.dim() > 2:
        raise ShapeError(
            f"{where}: '{name}'",
            "must be a vector or a matrix, or come with a split that says which matrices it holds",
            tuple(tensor.shape),
            "Add 'split': mm.Split(experts=True) for a stack of matrices, or let mm.adapt(model) read convolutions and "
            "fused weights.",
        )
    return ()


def _shares(made: dict[str, Any], cut: Sequence[Sequence[Piece]], where: str) -> list[Any]:
    """A share for each parameter, or a list of one for each of its pieces."""
    if "share" in made and "shares" in made:
        raise ArgumentError(
            where, "must have share or shares", "both", "Write one share for all of the group."
        )
    if "shares" in made:
        return list(made["shares"])
    share = made.pop("share", 1.0)
    return [[share] * len(pieces) if len(pieces) > 1 else share for pieces in cut]


def _check_point(geometry: Geometry, stored: Tensor, piece: Piece | None, where: str) -> None:
    """Refuse a shape that the manifold does not have, a piece that cannot be a view, and a weight off its manifold."""
    if piece is not None:
        try:
            piece.view(torch.empty(stored.shape, device="meta")).view(piece.shape)
        except RuntimeError:
            raise ShapeError(
                where,
                "must lie in its tensor with rows and columns next to each other",
                tuple(stored.shape),
                "Choose a split that cuts along one dimension.",
            ) from None
    point = stored if piece is None else piece.read(stored)
    geometry.manifold.check_shape(tuple(point.shape), argument=where)
    if not (point.is_floating_point() and geometry.manifold.compact):
        return
    residual = float(geometry.manifold.residual(point).amax())
    if not residual <= FAR:
        raise ArgumentError(
            where,
            f"must be on {geometry.manifold} to {FAR:g}",
            f"a weight {residual:.3g} off it",
            "Project it first: p.data.copy_(manifold.project(p.data)). A trained weight is better kept on a manifold that "
            "goes through it, such as mm.SpectralBall(radius) or mm.Sphere(radius).",
        )


def _refuse_twice(known: Mapping[str, Geometry], found: Mapping[str, Geometry]) -> None:
    for name in found:
        if name in known:
            raise ArgumentError(
                ARGUMENT,
                "must name every parameter once",
                f"'{name}' in two groups",
                "Pass each parameter in one group.",
            )
