"""State that is loaded: it belongs to these weights, keeps its dtypes, and is matched as torch matches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.optim.damping import AVERAGES, unit_shape
from modular_manifolds.optim.settings import check_groups
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.select import find_solver

ARGUMENT = "load_state_dict(state_dict)"
LATER = {"noise_damping": False}
"""Settings that older state dicts do not have, with the value that they stand for."""
REMEDY = "Build the optimizer on the network that the state was saved from."


def matrix_shape(weight: Tensor) -> tuple[int, ...]:
    """The shape of a weight as the solver sees it: a vector is one column."""
    return (*weight.shape, 1) if weight.dim() == 1 else tuple(weight.shape)


def dual_shape(weight: Tensor, geometry: Geometry, solver: str | Solver) -> tuple[int, ...] | None:
    """The shape of the dual variable that the weight's solver starts from; None if it starts from none."""
    chosen = find_solver(geometry.manifold, geometry.norm, solver)
    return chosen.dual_shape(matrix_shape(weight))


def check_state(
    given: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
    geometries: Mapping[str, Geometry],
    dual_shapes: Mapping[str, tuple[int, ...] | None],
) -> None:
    """Refuse a state dict that is not for the weights of `groups`, before anything is changed.

    Raises:
        ArgumentError: the names, a shape, a setting or a value does not fit; the message says which.
    """
    if not {"state", "param_groups"} <= given.keys():
        _refuse("must hold state and param_groups", ", ".join(map(str, given)) or "nothing")
    saved: list[dict[str, Any]] = given["param_groups"]
    names = [group["name"] for group in groups]
    seen = [group.get("name") for group in saved]
    if seen != names:
        _refuse(f"must be for the weights {', '.join(names)}", ", ".join(map(str, seen)))
    places: dict[Any, Mapping[str, Any]] = {}
    for ours, theirs in zip(groups, saved, strict=True):
        if len(theirs["params"]) != 1:
            _refuse(f"must hold one weight in the group '{ours['name']}'", len(theirs["params"]))
        shape = theirs.get("shape", ours["shape"])
        if list(shape) != ours["shape"]:
            _refuse(f"must be for '{ours['name']}' of shape {tuple(ours['shape'])}", tuple(shape))
        places[theirs["params"][0]] = ours
    check_groups([{**LATER, **group} for group in saved], geometries)
    for key, entries in given["state"].items():
        if key not in places:
            _refuse("must hold state of weights in its groups only", f"state of {key!r}")
        _check_entries(entries, places[key], geometries[places[key]["name"]], dual_shapes)


def by_weight(given: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> dict[Tensor, Any]:
    """The saved state of each weight: torch matches the ids that the saved groups list, in their order."""
    places = {
        theirs["params"][0]: ours["params"][0]
        for ours, theirs in zip(groups, given["param_groups"], strict=True)
    }
    return {places[key]: entries for key, entries in given["state"].items()}


def _check_entries(
    entries: Mapping[str, Any],
    group: Mapping[str, Any],
    geometry: Geometry,
    dual_shapes: Mapping[str, tuple[int, ...] | None],
) -> None:
    name, weight = group["name"], group["params"][0]
    wanted = {"momentum": tuple(weight.shape), "master": tuple(weight.shape)}
    dual = dual_shapes[name]
    if dual is not None:
        wanted["dual"] = dual
    wanted.update(dict.fromkeys(AVERAGES, unit_shape(weight, geometry.coupled_dims)))
    for key, shape in wanted.items():
        value = entries.get(key)
        if value is None:
            continue
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            seen = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            _refuse(f"must have {key} of shape {shape} for '{name}'", seen)
        if not bool(torch.isfinite(value).all()):
            _refuse(f"must have finite {key} for '{name}'", "NaN or infinity")


def _refuse(rule: str, seen: object) -> None:
    raise ArgumentError(ARGUMENT, rule, seen, REMEDY)
