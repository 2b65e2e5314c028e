"""The only door to the accelerator kernels."""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

from torch import Tensor

from modular_manifolds.errors import BackendError

Backend = Literal["auto", "torch", "triton"]


def why_not(x: Tensor) -> str | None:
    """Why the Triton kernels cannot be used for `x`, in a sentence; None when they can."""
    if x.device.type != "cuda":
        return f"the tensor is on {x.device.type}, and Triton kernels run on cuda devices only"
    if importlib.util.find_spec("modular_manifolds_kernels") is None:
        return "this installation holds no kernel package (modular_manifolds_kernels)"
    return "the kernel package offers no kernel for this operation yet"


def resolve(backend: Backend, x: Tensor) -> Literal["torch", "triton"]:
    """The backend to use for `x`: `auto` may fall back to torch, a name is used or refused.

    Raises:
        BackendError: `backend` is unknown, or is `triton` and cannot be used for `x`.
    """
    if backend not in get_args(Backend):
        names = ", ".join(get_args(Backend))
        raise BackendError("backend", f"must be one of {names}", repr(backend), "Use 'auto'.")
    if backend == "torch":
        return "torch"
    reason = why_not(x)
    if reason is None:
        return "triton"
    if backend == "triton":
        raise BackendError(
            "backend", "must be usable when asked for by name", "'triton'", f"Use 'auto': {reason}."
        )
    return "torch"
