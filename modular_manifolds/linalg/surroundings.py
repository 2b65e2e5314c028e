"""Contexts in which code computes in the dtypes that it names, whatever autocast and torch's settings say."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from modular_manifolds.linalg.backend import product_settings

Function = TypeVar("Function", bound=Callable[..., object])


def full_precision(device_type: str) -> AbstractContextManager[object]:
    """Compute in the dtypes that the code names: no autocast, and float32 products in float32.

    Every public function that computes enters this context once. Entering it again inside costs some hundred
    nanoseconds. The caller's settings are restored when the context ends.

    Args:
        device_type: the type of the tensors' device, such as `"cpu"`. The CPU's settings are changed too.
    """
    if torch.compiler.is_compiling():
        # A graph is compiled for one autocast state.
        return torch.autocast(device_type, enabled=False) if _autocasts(device_type) else _UNCHANGED
    return _UNCHANGED if _thread.inside else _FullPrecision(device_type)


def undisturbed(function: Function) -> Function:
    """Decorate `function` to run without autocast, reduced precision or gradients; its tensors share one device."""

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        if torch.is_grad_enabled():
            with torch.no_grad():
                return run(*arguments, **named)
        tensors = (*arguments, *named.values())
        device = next(x.device.type for x in tensors if isinstance(x, Tensor))
        with full_precision(device):
            return function(*arguments, **named)

    return run  # pyright: ignore[reportReturnType]


_UNCHANGED: Final = nullcontext()


class _Thread(threading.local):
    """Whether this thread is inside a context of full precision."""

    inside = False


_thread = _Thread()

REDUCED: Final = ("tf32", "bf16")
"""torch's settings of float32 products that compute in a lower precision."""


class _FullPrecision:
    __slots__ = ("_device_type", "_restore")

    def __init__(self, device_type: str) -> None:
        self._device_type = device_type
        self._restore: ExitStack | None = None

    def __enter__(self) -> None:
        # The common case, in which nothing changes, must be fast: a small step takes microseconds.
        if (
            self._device_type == "cpu"
            and not torch.is_autocast_enabled("cpu")
            and _ON_CPU.fp32_precision not in REDUCED
        ):
            _thread.inside = True
            return
        types = ("cpu",) if self._device_type == "cpu" else ("cpu", self._device_type)
        autocast = [each for each in types if _autocasts(each)]
        settings = [setting for each in types for setting in product_settings(each)]
        reduced = [each for each in settings if each.fp32_precision in REDUCED]
        if autocast or reduced:
            self._restore = ExitStack()
            for each in autocast:
                self._restore.enter_context(torch.autocast(each, enabled=False))
            for each in reduced:
                self._restore.callback(_set_precision, each, each.fp32_precision)
                each.fp32_precision = "ieee"
        _thread.inside = True

    def __exit__(self, *raised: object) -> None:
        _thread.inside = False
        if self._restore is not None:
            self._restore.close()


def _autocasts(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


(_ON_CPU,) = product_settings("cpu")


def _set_precision(setting: Any, precision: str) -> None:
    """Restore `precision`; if it was inherited, it is inherited again."""
    setting.fp32_precision = "none"
    if setting.fp32_precision != precision:
        setting.fp32_precision = precision
