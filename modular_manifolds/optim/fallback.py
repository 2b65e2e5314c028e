"""torch's AdamW for weights without a geometry, inside the same optimiser, because trainers accept one optimiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from modular_manifolds.arguments import NOT_NEGATIVE, POSITIVE, Range, check_number
from modular_manifolds.errors import ArgumentError
from modular_manifolds.optim.groups import is_fallback
from modular_manifolds.optim.weight import full_dtype

NAME: Final = "adamw"
DEFAULTS: Final[dict[str, Any]] = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
"""The default settings of a group: torch's, but without weight decay."""

BETA: Final = Range("must lie in [0, 1)", lambda x: 0 <= x < 1)
MOMENTS: Final = ("exp_avg", "exp_avg_sq")
CHANGED_ENTRIES: Final = (*MOMENTS, "step")


@dataclass(frozen=True, eq=False)
class FallbackWeight:
    """A parameter without a geometry; it is `param_groups[group]["params"][place]`."""

    name: str
    parameter: Tensor
    group: int
    place: int


def fallback_weights_in(groups: Sequence[Mapping[str, Any]]) -> list[FallbackWeight]:
    """Every parameter that AdamW steps, in the order of the groups."""
    return [
        FallbackWeight(name, parameter, index, place)
        for index, group in enumerate(groups)
        if is_fallback(group)
        for place, (name, parameter) in enumerate(
            zip(group["param_names"], group["params"], strict=True)
        )
    ]


def check_fallback(group: dict[str, Any], *, prefix: str) -> None:
    """Check a group with `optimizer="adamw"`, except its rate, and fill in the defaults.

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
                "must not be set in a group of AdamW, which has no geometry",
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


def prepare_fallback_(state: dict[str, Any], parameter: Tensor) -> None:
    """Make AdamW's missing state: zero moments, and a master copy of a weight below float32."""
    full, device = full_dtype(parameter), parameter.device
    if full is not parameter.dtype and "master" not in state:
        state["master"] = parameter.detach().to(full)
    for key in MOMENTS:
        if key not in state:
            state[key] = torch.zeros_like(parameter, dtype=full, requires_grad=False)
    if "step" not in state:
        # On the weights' device, as captures and the fused step require; torch's CPU code accepts it too.
        state["step"] = torch.zeros((), dtype=torch.float32, device=device)
    for key, entry in state.items():
        if entry.device != device:
            state[key] = entry.to(device)


def step_fallback(
    moving: Sequence[FallbackWeight],
    groups: Sequence[Mapping[str, Any]],
    state: Mapping[Tensor, dict[str, Any]],
    step_flags: Mapping[torch.device, Tensor] | None = None,
) -> None:
    """One step of AdamW on every weight.

    Args:
        moving: weights with a finite gradient.
        groups: the optimiser's `param_groups`.
        state: the optimiser's state by parameter.
        step_flags: for each device, whether the step is taken; None if it is.
    """
    alike: dict[tuple[int, torch.device, torch.dtype], list[FallbackWeight]] = {}
    for each in moving:
        key = each.group, each.parameter.device, each.parameter.dtype
        alike.setdefault(key, []).append(each)
    for (index, device, dtype), weights in alike.items():
        group = groups[index]
        held = [state[each.parameter] for each in weights]
        full = full_dtype(weights[0].parameter)
        gradients = [_gradient_of(each).to(full) for each in weights]
        has_masters = full is not dtype
        points = [
            _refresh_master_(entries["master"], each.parameter) if has_masters else each.parameter
            for entries, each in zip(held, weights, strict=True)
        ]
        # torch's fused step can cancel itself by a flag, but it does not compile.
        compiled = torch.compiler.is_compiling()
        changed = [*points, *(entries[key] for entries in held for key in CHANGED_ENTRIES)]
        before = [each.clone() for each in changed] if step_flags is not None and compiled else []
        fused = step_flags is not None and not compiled
        adamw(
            points,
            gradients,
            [entries["exp_avg"] for entries in held],
            [entries["exp_avg_sq"] for entries in held],
            [],
            [entries["step"] for entries in held],
            fused=True if fused else None,
            capturable=compiled and not points[0].is_cpu,
            # torch cancels the step if this flag is 1.
            found_inf=torch.logical_not(step_flags[device]).to(torch.float32)
            if fused and step_flags
            else None,
            grad_scale=None,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        if step_flags is not None and compiled:
            for now, old in zip(changed, before, strict=True):
                now.copy_(torch.where(step_flags[device], now, old))
        if has_masters:
            for point, each in zip(points, weights, strict=True):
                each.parameter.copy_(point)


def _refresh_master_(master: Tensor, parameter: Tensor) -> Tensor:
    """The master copy, after taking over entries of the weight that were changed outside the optimiser."""
    return master.copy_(
        torch.where(master.to(parameter.dtype) == parameter, master, parameter.to(master.dtype))
    )


def _gradient_of(each: FallbackWeight) -> Tensor:
    assert each.parameter.grad is not None
    return each.parameter.grad
