"""The forms of `params` that every torch optimiser takes: parameters, named parameters, or groups of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.sharded import refuse_flat_tensors

ARGUMENT: Final = "SteepestDescent(params)"


def as_groups(params: Any, *, argument: str = ARGUMENT) -> list[dict[str, Any]]:
    """The argument of a torch optimiser as a list of groups.

    Raises:
        ArgumentError: `params` has none of the three forms, or is empty.
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
    params_list = list(params)
    if not params_list:
        raise ArgumentError(
            argument,
            "must have a parameter",
            "an empty list (a generator is empty after its first use)",
            "Pass list(model.parameters()).",
        )
    if all(isinstance(each, Mapping) for each in params_list):
        return [dict(each) for each in params_list]
    return [{"params": params_list}]


def names_and_tensors(
    params: Any, names: Any, index: int, where: str
) -> tuple[list[str], list[Tensor]]:
    """The names and the tensors of one group. A parameter without a name is named after its position.

    Args:
        params: the group's `params`.
        names: the group's `param_names`, or None.
        index: the position of the group.
        where: the start of an error message.

    Raises:
        ArgumentError: `params` holds no parameters with values, or `names` has another length.
    """
    members = [params] if isinstance(params, Tensor) else params
    if not isinstance(members, Iterable) or isinstance(members, set | str):
        raise ArgumentError(
            where,
            "must have an ordered list of params",
            f"{type(params).__name__}" if params is not None else "no params",
            "Pass a list: the order of a set changes between runs.",
        )
    pairs: list[tuple[str, Tensor]] = []
    for position, each in enumerate(members):
        has_name = isinstance(each, tuple) and len(each) == 2
        name, tensor = each if has_name else (f"param_groups[{index}][{position}]", each)
        if not isinstance(tensor, Tensor):
            raise ArgumentError(
                where,
                "must hold tensors, or pairs of a name and a tensor",
                type(tensor).__name__,
                "Pass model.parameters() or model.named_parameters().",
            )
        refuse_flat_tensors([(str(name), tensor)], argument=where)
        if tensor.is_meta:
            raise ArgumentError(
                where,
                "must hold parameters with values",
                f"'{name}' on the meta device",
                "Call model.to_empty(device=...) and load or draw its values first.",
            )
        pairs.append((str(name), tensor))
    if not pairs:
        raise ArgumentError(
            where,
            "must have a parameter",
            "none (a generator is empty after its first use)",
            "Pass list(model.parameters()), or leave the group out.",
        )
    if names is not None:
        if len(names) != len(pairs):
            raise ArgumentError(
                where,
                f"must have a name for each of its {len(pairs)} parameters",
                len(names),
                "Leave param_names out, or pass model.named_parameters().",
            )
        pairs = [(str(name), tensor) for name, (_, tensor) in zip(names, pairs, strict=True)]
    return [name for name, _ in pairs], [tensor for _, tensor in pairs]
