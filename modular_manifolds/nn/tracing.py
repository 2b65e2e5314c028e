"""Tests for placeholder tensors: on the meta device, in fake tensors, and during tracing."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def has_values(x: Tensor) -> bool:
    """Whether the entries of `x` exist: not on the meta device, and not in a fake tensor of torch."""
    return not x.is_meta and type(x).__name__ != "FakeTensor"


def makes_values() -> bool:
    """Whether new tensors have values; under `torch.device("meta")` they have none."""
    return has_values(torch.empty(0))


def has_sizes(x: Any) -> bool:
    """Whether the sizes of `x` can be compared: for `torch.jit.trace` and `torch.fx` they are placeholders."""
    return isinstance(x, Tensor) and not _is_jit_traced()


def is_traced(x: Any) -> bool:
    """Whether the call with `x` is being recorded by a compiler, an export or a tracer."""
    return torch.compiler.is_compiling() or _is_jit_traced() or type(x) is not Tensor


def sizes_of_the_network() -> AbstractContextManager[object]:
    """A context for comparisons of sizes fixed by the network, without the warning of `torch.jit.trace`."""
    if not _is_jit_traced():
        return nullcontext()
    warning = torch.jit.TracerWarning  # pyright: ignore[reportPrivateImportUsage]
    return warnings.catch_warnings(action="ignore", category=warning)


def _is_jit_traced() -> bool:
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
