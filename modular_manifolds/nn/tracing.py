"""Tensors that stand in for others, on the meta device and in tracers of programs, and how a module tells them."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def has_values(x: Tensor) -> bool:
    """Whether the entries of `x` exist: not on the meta device, and not in a fake tensor of torch."""
    return not x.is_meta and type(x).__name__ != "FakeTensor"


def has_sizes(x: Any) -> bool:
    """Whether the sizes of `x` can be compared: to `torch.jit.trace` and `torch.fx` they are stand-ins."""
    return isinstance(x, Tensor) and not _is_jit_traced()


def is_traced(x: Any) -> bool:
    """Whether a program is being made of the call with `x`: by a compiler, by export or by a tracer."""
    return torch.compiler.is_compiling() or _is_jit_traced() or type(x) is not Tensor


def sizes_of_the_network() -> AbstractContextManager[object]:
    """Inside, sizes may be compared that are the network's: `torch.jit.trace` takes them for the input's, and warns."""
    if not _is_jit_traced():
        return nullcontext()
    warning = torch.jit.TracerWarning  # pyright: ignore[reportPrivateImportUsage]
    return warnings.catch_warnings(action="ignore", category=warning)


def _is_jit_traced() -> bool:
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
