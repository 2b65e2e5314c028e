"""AdamW, torch's own, for weights without a geometry: inside the same optimiser, because trainers accept one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from modular_manifolds.arguments import NOT_NEGATIVE, POSITIVE, Range, check_number
from modular_manifolds.errors import ArgumentError
from modular_manifolds.optim.groups import is_other
from modular_manifolds.optim.weight import full_dtype

NAME: Final = "adamw"
DEFAULTS: Final[dict[str, Any]] = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
"""The settings of a group that states none: torch's, without a decay."""

BETA: Final = Range("must lie in [0, 1)", lambda x: 0 <= x < 1)
MOMENTS: Final = ("exp_avg", "exp_avg_sq")
CHANGED: Final = (*MOMENTS, "step")


@dataclass(frozen=True, eq=False)
class Plain:
    """A parameter without a geometry, and its place in the groups."""

    name: str
    parameter: Tensor
    group: int
    place: int


def plain_in(groups: Sequence[Mapping[str, Any]]) -> list[Plain]:
    """Every parameter that AdamW steps, in the order of the groups."""
    return [
        Plain(name, parameter, index, place)
        for index, group in enumerate(groups)
        if is_other(group)
        for place, (name, parameter) in enumerate(
            zip(group["param_names"], group["params"], strict=True)
        )
    ]


def check_other(group: dict[str, Any], *, prefix: str) -> None:
    """Hold a group of another optimiser to its rules; the rate is checked by the caller.

    Raises:
        ArgumentError: the optimiser is not AdamW, or a setting is out of range.
    """
    if group["optimizer"] != NAME:
        raise ArgumentError(
            f"{prefix}optimizer",
            f"must be '{NAME}'",
            repr(group["optimizer"]),
            "Leave it out and give the group a manifold and a norm, or write 'adamw'.",
        )
    for key in ("manifold", "norm"):
        if group.get(key) is not None:
            raise ArgumentError(
                f"{prefix}{key}",
                "must not be set in a group of AdamW, which knows no geometry",
                group[key],
                f"Remove the group's optimizer, or its {key}.",
            )
    for key, value in DEFAULTS.items():
        group.setdefault(key, value)
    betas = group["betas"]
    if not isinstance(betas, list | tuple) or len(betas) != 2:
        raise ArgumentError(
            f"{prefix}betas", "must be two numbers", repr(betas), "Pass (0.9, 0.999)."
        )
    group["betas"] = tuple(
        check_number(each, BETA, argument=f"{prefix}betas", remedy="Pass (0.9, 0.999).")
        for each in betas
    )
    group["eps"] = check_number(
        group["eps"], POSITIVE, argument=f"{prefix}eps", remedy="Pass 1e-8."
    )
    group["weight_decay"] = check_number(
        group["weight_decay"],
        NOT_NEGATIVE,
        argument=f"{prefix}weight_decay",
        remedy="Pass 0 for none.",
    )


def prepare_plain_(state: dict[str, Any], parameter: Tensor) -> None:
    """Make AdamW's state; moments are at zero, and a weight below float32 has a master copy."""
    full, device = full_dtype(parameter), parameter.device
    if full is not parameter.dtype and "master" not in state:
        state["master"] = parameter.detach().to(full)
    for key in MOMENTS:
        if key not in state:
            state[key] = torch.zeros_like(parameter, dtype=full, requires_grad=False)
    if "step" not in state:
        # Beside the weights: a capture and a device flag need it there, and torch's own code for the CPU takes it.
        state["step"] = torch.zeros((), dtype=torch.float32, device=device)
    for key, entry in state.items():
        if entry.device != device:
            state[key] = entry.to(device)


def step_plain(
    moving: Sequence[Plain],
    groups: Sequence[Mapping[str, Any]],
    state: Mapping[Tensor, dict[str, Any]],
    ok: Mapping[torch.device, Tensor] | None = None,
) -> None:
    """One step of AdamW on every weight.

    Args:
        moving: weights with a finite gradient.
        groups: the optimiser's.
        state: the optimiser's.
        ok: for each device a flag whether the step may be taken; None if it may.
    """
    alike: dict[tuple[int, torch.device, torch.dtype], list[Plain]] = {}
    for each in moving:
        key = each.group, each.parameter.device, each.parameter.dtype
        alike.setdefault(key, []).append(each)
    for (index, device, dtype), weights in alike.items():
        group = groups[index]
        held = [state[each.parameter] for each in weights]
        full = full_dtype(weights[0].parameter)
        gradients = [_gradient(each).to(full) for each in weights]
        coarse = full is not dtype
        points = [
            _followed(entries["master"], each.parameter) if coarse else each.parameter
            for entries, each in zip(held, weights, strict=True)
        ]
        # torch's fused step leaves itself out by a flag, and a compiler cannot look into it.
        compiled = torch.compiler.is_compiling()
        kept = [*points, *(entries[key] for entries in held for key in CHANGED)]
        before = [each.clone() for each in kept] if ok is not None and compiled else []
        fused = ok is not None and not compiled
        adamw(
            points,
            gradients,
            [entries["exp_avg"] for entries in held],
            [entries["exp_avg_sq"] for entries in held],
            [],
            [entries["step"] for entries in held],
            fused=True if fused else None,
            capturable=compiled and not points[0].is_cpu,
            # torch's flag is one if the step is to be left out.
            found_inf=torch.logical_not(ok[device]).to(torch.float32) if fused and ok else None,
            grad_scale=None,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        if ok is not None and compiled:
            for now, old in zip(kept, before, strict=True):
                now.copy_(torch.where(ok[device], now, old))
        if coarse:
            for point, each in zip(points, weights, strict=True):
                each.parameter.copy_(point)


def _followed(master: Tensor, parameter: Tensor) -> Tensor:
    """The master copy, after entries that somebody has changed in the weight since."""
    return master.copy_(
        torch.where(master.to(parameter.dtype) == parameter, master, parameter.to(master.dtype))
    )


def _gradient(each: Plain) -> Tensor:
    assert each.parameter.grad is not None
    return each.parameter.grad
