"""Loading a state dict: check that it fits the weights, and keep its dtypes and the tensors' addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.sharded import local, placements_of
from modular_manifolds.optim.damping import AVERAGES, unit_shape
from modular_manifolds.optim.fallback import MOMENTS, FallbackWeight, fallback_weights_in
from modular_manifolds.optim.former import from_one_group_a_weight, is_former
from modular_manifolds.optim.groups import weights_in
from modular_manifolds.optim.rates import load_rates_in_place_
from modular_manifolds.optim.settings import check_groups
from modular_manifolds.optim.weight import STORED_SHAPE_ENTRIES, Weight, dual_shape
from modular_manifolds.solvers.base import Solver

ARGUMENT = "load_state_dict(state_dict)"
REMEDY = "Build the optimizer on the network that the state was saved from."


@contextmanager
def checked_and_in_place(
    optimizer: Optimizer, geometries: Mapping[str, Geometry], solver: str | Solver
) -> Iterator[None]:
    """Check a state dict before `optimizer` loads it, and write it into the existing tensors afterwards.

    The check follows the user's pre-hooks, and the restoring precedes the user's post-hooks.

    Raises:
        ArgumentError: see `check_state`.
    """
    checked: list[dict[str, Any]] = []
    before = {weight: dict(entries) for weight, entries in optimizer.state.items()}
    rates = [group["lr"] for group in optimizer.param_groups]

    def check(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        checked.append(check_state(state, optimizer.param_groups, geometries, solver, before))
        return checked[0]

    @torch.no_grad()
    def restore(_: Optimizer) -> None:
        loaded = state_by_weight(checked[0], optimizer.param_groups)
        load_in_place_(optimizer.state, before, loaded)
        load_rates_in_place_(optimizer.param_groups, rates)

    handles = (
        optimizer.register_load_state_dict_pre_hook(check),
        optimizer.register_load_state_dict_post_hook(restore, prepend=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_state(
    state_dict: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
    geometries: Mapping[str, Geometry],
    solver: str | Solver,
    state: Mapping[Tensor, Mapping[str, Any]],
) -> dict[str, Any]:
    """Check that a state dict is for the weights of `groups`, and return it in the current format. Nothing is changed.

    Args:
        state_dict: the loaded state.
        groups: the optimiser's parameter groups.
        geometries: the geometry of every weight, by name.
        solver: the optimiser's argument.
        state: the optimiser's state; a sharded entry takes values of its own placements only.

    Raises:
        ArgumentError: a name, a shape, a geometry, a setting or a value does not fit; the message names it.
    """
    if not {"state", "param_groups"} <= state_dict.keys():
        _refuse("must hold state and param_groups", ", ".join(map(str, state_dict)) or "nothing")
    saved: Sequence[dict[str, Any]] = state_dict["param_groups"]
    if is_former(saved):
        saved = from_one_group_a_weight(saved, groups, refuse=_refuse)
    seen = [_names(group) for group in saved]
    expected = [_names(group) for group in groups]
    if seen != expected:
        _refuse(f"must be for the weights {_join_names(expected)}", _join_names(seen))
    by_key: dict[Any, list[Weight | FallbackWeight]] = {}
    by_parameter: dict[Tensor, list[Weight | FallbackWeight]] = {}
    for each in (*weights_in(groups, geometries), *fallback_weights_in(groups)):
        by_parameter.setdefault(each.parameter, []).append(each)
    for ours, theirs in zip(groups, saved, strict=True):
        if len(theirs["params"]) != len(ours["params"]):
            _refuse(f"must hold {len(ours['params'])} weights in a group", len(theirs["params"]))
        for place, (key, parameter) in enumerate(
            zip(theirs["params"], ours["params"], strict=True)
        ):
            by_key[key] = by_parameter[parameter]
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
    for key, entries in state_dict["state"].items():
        if key not in by_key:
            _refuse("must hold state of weights in its groups only", f"state of {key!r}")
        for each in by_key[key]:
            held = state.get(each.parameter, {})
            _check_entries(entries, each.name, _entry_shapes(each, solver), held, each.parameter)
    return {**state_dict, "param_groups": saved}


def load_in_place_(
    state: dict[Tensor, dict[str, Any]],
    before: Mapping[Tensor, Mapping[str, Any]],
    loaded: Mapping[Tensor, Mapping[str, Any]],
) -> None:
    """Write loaded state into the existing tensors if shapes and dtypes agree; otherwise use a copy in the saved dtype.

    torch casts state to the parameter's dtype, which would round a master copy to bfloat16. Captured graphs hold the
    addresses of the existing tensors.
    """
    for weight, entries in loaded.items():
        for key, value in entries.items():
            if not isinstance(value, Tensor):
                continue
            existing = before.get(weight, {}).get(key)
            if (
                existing is not None
                and existing.shape == value.shape
                and existing.dtype is value.dtype
            ):
                state[weight][key] = existing.copy_(value)
            else:
                state[weight][key] = value.to(weight.device, copy=True)


def state_by_weight(
    state_dict: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]
) -> dict[Tensor, Any]:
    """The saved state of each weight. As in torch, saved ids are matched by their order in the groups."""
    weights = {
        key: weight
        for ours, theirs in zip(groups, state_dict["param_groups"], strict=True)
        for key, weight in zip(theirs["params"], ours["params"], strict=True)
    }
    return {weights[key]: entries for key, entries in state_dict["state"].items()}


def _names(group: Mapping[str, Any]) -> list[Any]:
    """The parameter names of a saved group; a malformed entry becomes a list with one element."""
    names = group.get("param_names")
    return list(names) if isinstance(names, list | tuple) else [names]


def _join_names(names: Sequence[Sequence[Any]]) -> str:
    return ", ".join(str(name) for group in names for name in group)


def _entry_shapes(
    weight: Weight | FallbackWeight, solver: str | Solver
) -> dict[str, tuple[int, ...]]:
    """The shape of each entry that the state of a weight may have."""
    shape = tuple(weight.parameter.shape)
    if isinstance(weight, FallbackWeight):
        return {**dict.fromkeys((*MOMENTS, "master"), shape), "step": ()}
    expected: dict[str, tuple[int, ...]] = dict.fromkeys(STORED_SHAPE_ENTRIES, shape)
    dual = dual_shape(weight, solver)
    if dual is not None:
        expected[weight.key("dual")] = dual
    unit = unit_shape(weight.shape, weight.geometry.coupled_dims)
    expected.update({weight.key(name): unit for name in AVERAGES})
    return expected


def _check_entries(
    entries: Mapping[str, Any],
    name: str,
    expected: Mapping[str, tuple[int, ...]],
    held: Mapping[str, Any],
    parameter: Tensor,
) -> None:
    for key, shape in expected.items():
        value = entries.get(key)
        if value is None:
            continue
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            seen = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            _refuse(f"must have {key} of shape {shape} for '{name}'", seen)
        if shape:
            _check_placements(value, f"{key} of '{name}'", held.get(key, parameter))
        if not bool(torch.isfinite(local(value)).all()):
            _refuse(f"must have finite {key} for '{name}'", "NaN or infinity")


def _check_placements(value: Tensor, entry: str, held: Tensor) -> None:
    """Refuse an entry that is sharded in another way than the entry that it replaces."""
    seen, expected = placements_of(value), placements_of(held)
    if seen != expected:
        raise ArgumentError(
            ARGUMENT,
            f"must hold {entry} {expected}",
            seen,
            "Load with torch.distributed.checkpoint, which reshards, or with set_optimizer_state_dict and "
            "StateDictOptions(full_state_dict=True), which distributes whole tensors.",
        )


def _refuse(rule: str, seen: object) -> None:
    raise ArgumentError(ARGUMENT, rule, seen, REMEDY)
