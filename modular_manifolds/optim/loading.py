"""State that is loaded: it belongs to these weights, keeps its dtypes, and is matched as torch matches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.optim.damping import AVERAGES, unit_shape
from modular_manifolds.optim.fallback import MOMENTS, Plain, plain_in
from modular_manifolds.optim.former import from_one_group_a_weight, is_former
from modular_manifolds.optim.groups import weights_in
from modular_manifolds.optim.settings import check_groups
from modular_manifolds.optim.weight import AS_STORED, Weight, dual_shape
from modular_manifolds.solvers.base import Solver

ARGUMENT = "load_state_dict(state_dict)"
REMEDY = "Build the optimizer on the network that the state was saved from."


def checked_state(
    given: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
    geometries: Mapping[str, Geometry],
    solver: str | Solver,
) -> dict[str, Any]:
    """The state dict in today's format, after it was found to be for the weights of `groups`. Nothing is changed.

    State dicts with one group a weight, as they were written before, are brought into today's format.

    Raises:
        ArgumentError: the names, a shape, a geometry, a setting or a value does not fit; the message says which.
    """
    if not {"state", "param_groups"} <= given.keys():
        _refuse("must hold state and param_groups", ", ".join(map(str, given)) or "nothing")
    saved: Sequence[dict[str, Any]] = given["param_groups"]
    if is_former(saved):
        saved = from_one_group_a_weight(saved, groups, refuse=_refuse)
    seen = [_names(group) for group in saved]
    wanted = [_names(group) for group in groups]
    if seen != wanted:
        _refuse(f"must be for the weights {_listed(wanted)}", _listed(seen))
    places: dict[Any, list[Weight | Plain]] = {}
    held: dict[Tensor, list[Weight | Plain]] = {}
    for each in (*weights_in(groups, geometries), *plain_in(groups)):
        held.setdefault(each.parameter, []).append(each)
    for ours, theirs in zip(groups, saved, strict=True):
        if len(theirs["params"]) != len(ours["params"]):
            _refuse(f"must hold {len(ours['params'])} weights in a group", len(theirs["params"]))
        for place, (key, parameter) in enumerate(
            zip(theirs["params"], ours["params"], strict=True)
        ):
            places[key] = held[parameter]
            shape = theirs["shapes"][place]
            if list(shape) != ours["shapes"][place]:
                _refuse(
                    f"must be for '{ours['param_names'][place]}' of shape {tuple(ours['shapes'][place])}",
                    tuple(shape),
                )
        for key in ("manifold", "norm", "pieces", "optimizer"):
            if theirs.get(key) != ours.get(key):
                _refuse(
                    f"must be for the {key} {ours.get(key)} of '{ours['param_names'][0]}'",
                    theirs.get(key),
                )
    check_groups(saved := [dict(group) for group in saved], geometries)
    for key, entries in given["state"].items():
        if key not in places:
            _refuse("must hold state of weights in its groups only", f"state of {key!r}")
        for each in places[key]:
            _check_entries(entries, each.name, _wanted(each, solver))
    return {**given, "param_groups": saved}


def keep_places_(
    state: dict[Tensor, dict[str, Any]],
    before: Mapping[Tensor, Mapping[str, Any]],
    loaded: Mapping[Tensor, Mapping[str, Any]],
) -> None:
    """Put loaded state into the tensors of the state before, if shape, dtype and device agree; else it keeps its saved dtype.

    torch casts state to the parameter's dtype, which would round a master copy to bfloat16. Captured graphs hold the
    addresses of the tensors that were there before.
    """
    for weight, entries in loaded.items():
        for key, value in entries.items():
            if not isinstance(value, Tensor):
                continue
            held = before.get(weight, {}).get(key)
            if held is not None and held.shape == value.shape and held.dtype is value.dtype:
                state[weight][key] = held.copy_(value)
            else:
                state[weight][key] = value.to(weight.device, copy=True)


def keep_rates_(groups: Sequence[dict[str, Any]], before: Sequence[Tensor | float]) -> None:
    """Write loaded rates into the tensors that held the rates before."""
    written: list[Tensor] = []
    for group, held in zip(groups, before, strict=True):
        loaded = group["lr"]
        if not isinstance(held, Tensor):
            continue
        if any(each is held for each in written):
            # Several groups shared one tensor.
            same = bool(held == loaded)
            group["lr"] = held if same else torch.as_tensor(loaded).to(held)
            continue
        group["lr"] = held.copy_(torch.as_tensor(loaded))
        written.append(held)


def by_weight(given: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> dict[Tensor, Any]:
    """The saved state of each weight: torch matches the ids that the saved groups list, in their order."""
    places = {
        key: weight
        for ours, theirs in zip(groups, given["param_groups"], strict=True)
        for key, weight in zip(theirs["params"], ours["params"], strict=True)
    }
    return {places[key]: entries for key, entries in given["state"].items()}


def _names(group: Mapping[str, Any]) -> list[Any]:
    names = group.get("param_names")
    return list(names) if isinstance(names, list | tuple) else [names]


def _listed(names: Sequence[Sequence[Any]]) -> str:
    return ", ".join(str(name) for group in names for name in group)


def _wanted(weight: Weight | Plain, solver: str | Solver) -> dict[str, tuple[int, ...]]:
    """The shape of each entry that the state of a weight may have."""
    shape = tuple(weight.parameter.shape)
    if isinstance(weight, Plain):
        return {**dict.fromkeys((*MOMENTS, "master"), shape), "step": ()}
    wanted: dict[str, tuple[int, ...]] = dict.fromkeys(AS_STORED, shape)
    dual = dual_shape(weight, solver)
    if dual is not None:
        wanted[weight.key("dual")] = dual
    unit = unit_shape(weight.shape, weight.geometry.coupled_dims)
    wanted.update({weight.key(name): unit for name in AVERAGES})
    return wanted


def _check_entries(
    entries: Mapping[str, Any], name: str, wanted: Mapping[str, tuple[int, ...]]
) -> None:
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
