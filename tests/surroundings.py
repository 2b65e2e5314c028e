"""Modes and precisions that a caller may have set in torch: the one table for steps, functions and reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

Surroundings = Callable[[], AbstractContextManager[object]]


@contextmanager
def setting(write: Callable[[Any], object], value: object, before: object) -> Iterator[None]:
    """A global setting with another value, and as it was afterwards."""
    write(value)
    try:
        yield
    finally:
        write(before)


def default_dtype(dtype: torch.dtype) -> AbstractContextManager[None]:
    return setting(torch.set_default_dtype, dtype, torch.get_default_dtype())


def matmul_precision(precision: str) -> AbstractContextManager[None]:
    before = torch.get_float32_matmul_precision()
    return setting(torch.set_float32_matmul_precision, precision, before)


def products_in(precision: str) -> AbstractContextManager[None]:
    backends: Any = torch.backends

    def write(value: str) -> None:
        backends.fp32_precision = value

    return setting(write, precision, backends.fp32_precision)


SURROUNDINGS: dict[str, Surroundings] = {
    "inference mode": torch.inference_mode,
    "no derivatives": torch.no_grad,
    "derivatives": torch.enable_grad,
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "autocast to bfloat16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "products of medium precision": lambda: matmul_precision("medium"),
    "products in bfloat16": lambda: products_in("bf16"),
    # The tests' room allows deterministic algorithms only.
    "any algorithm": lambda: setting(torch.use_deterministic_algorithms, False, True),
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device meta": lambda: torch.device("meta"),
    "fused attention": lambda: sdpa_kernel(SDPBackend.FLASH_ATTENTION),
}
