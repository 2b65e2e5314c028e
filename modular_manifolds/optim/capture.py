"""The rules of a captured step: a graph replays the same launches, so no decision of the host may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError
from modular_manifolds.optim.groups import is_fallback
from modular_manifolds.optim.roster import Roster

ARGUMENT = "SteepestDescent.step() in a captured graph"


def is_capturing() -> bool:
    """Whether the current stream of a CUDA device is being captured."""
    if torch.compiler.is_compiling() or not torch.cuda.is_initialized():
        return False
    return torch.cuda.is_current_stream_capturing()


def check_capture(capturable: bool, roster: Roster, groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a capture that would freeze a changing value.

    Raises:
        ArgumentError: `capturable` is not set, a weight has no gradient or is on the CPU, a rate is not a tensor on
            the device, or the weights or shares have changed since the previous step.
    """
    if not capturable:
        _refuse("needs a capturable optimizer", "capturable=False", "Pass capturable=True.")
    for group in groups:
        lr = group["lr"]
        if not isinstance(lr, Tensor) or lr.is_cpu:
            seen = "a tensor on the CPU" if isinstance(lr, Tensor) else repr(lr)
            _refuse(
                "needs an lr tensor on the device, which replays read again",
                seen,
                "Write new values into the tensor group['lr'], and do not replace it.",
            )
        shares = [1.0] * len(group["params"]) if is_fallback(group) else group["shares"]
        for name, share, weight in zip(group["param_names"], shares, group["params"], strict=True):
            if weight.is_cpu:
                _refuse(
                    "needs all weights on the device",
                    f"'{name}' on the CPU",
                    "Move the network before the optimizer is built.",
                )
            if weight.grad is None and share != 0:
                _refuse(
                    "needs a gradient of every weight, because replays would never step the weight",
                    f"no gradient of '{name}'",
                    "Run backward before the capture, and zero_grad(set_to_none=False) after it.",
                )
    shares = [list(bucket.share_values) for bucket in roster.buckets]
    if not roster.is_current(groups) or shares != [
        bucket.share_values for bucket in roster.buckets
    ]:
        _refuse(
            "needs the weights, shares and gradients of the previous step",
            "other ones",
            "Take one warm-up step, and capture the next one.",
        )


def _refuse(rule: str, seen: str, remedy: str) -> None:
    raise ArgumentError(ARGUMENT, rule, seen, remedy)
