"""The learning rate: a number, or a tensor that every compiled or captured step reads again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from modular_manifolds.arguments import NOT_NEGATIVE, check_number
from modular_manifolds.errors import ArgumentError
from modular_manifolds.linalg.matrices import readable

RATE_REMEDY: Final = "Pass a learning rate such as 0.1."

LONGEST_STEP: Final = 1e30
"""The smallest refused length of a step in the weight's norm: its entries could overflow float32."""


def rate_or_default(lr: Tensor | float | None, params: Any) -> Tensor | float:
    """The learning rate, by default that of the plan.

    Raises:
        ArgumentError: `lr` is None, and `params` is no plan.
    """
    rate = getattr(params, "default_lr", None) if lr is None else lr
    if rate is None:
        raise ArgumentError(
            "SteepestDescent(lr)",
            "must be given, because only a plan of mm.adapt has a default",
            None,
            RATE_REMEDY,
        )
    return rate


def check_rate(lr: Any, *, argument: str) -> Tensor | float:
    """Check a learning rate; return it as a Python float, or as the same tensor.

    A tensor must be real and 0-dimensional. Its value is checked if the host can read it without waiting.
    """
    if not isinstance(lr, Tensor):
        return check_number(lr, NOT_NEGATIVE, argument=argument, remedy=RATE_REMEDY)
    if lr.dim() != 0 or not lr.is_floating_point():
        raise ArgumentError(
            argument,
            "must be one real floating-point number, without dimensions",
            f"a tensor of shape {tuple(lr.shape)} and {lr.dtype}",
            "Pass torch.tensor(0.1), or a Python float.",
        )
    if readable(lr):
        check_number(lr.item(), NOT_NEGATIVE, argument=argument, remedy=RATE_REMEDY)
    return lr


def rates_on_device_(settings: dict[str, Any], groups: Sequence[dict[str, Any]]) -> None:
    """Replace the rates of `settings` and of `groups` by tensors on the device of the weights."""
    device = groups[0]["params"][0].device
    for each in (settings, *groups):
        if "lr" in each and not isinstance(each["lr"], Tensor):
            each["lr"] = torch.full((), float(each["lr"]), dtype=torch.float64, device=device)


def load_rates_in_place_(
    groups: Sequence[dict[str, Any]], before: Sequence[Tensor | float]
) -> None:
    """Write loaded rates into the existing rate tensors."""
    written: list[Tensor] = []
    for group, existing in zip(groups, before, strict=True):
        loaded = group["lr"]
        if not isinstance(existing, Tensor):
            continue
        if any(each is existing for each in written):
            # Several groups share this tensor.
            same = bool(existing == loaded)
            group["lr"] = existing if same else torch.as_tensor(loaded).to(existing)
            continue
        group["lr"] = existing.copy_(torch.as_tensor(loaded))
        written.append(existing)
