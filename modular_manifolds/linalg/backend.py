"""The only door to the accelerator kernels, and the only place that knows devices by name."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import modular_manifolds_kernels as kernels
import torch
from torch import Tensor

from modular_manifolds.errors import BackendError
from modular_manifolds.linalg.coefficients import Polynomial

Backend = Literal["auto", "torch", "triton"]


def why_not(x: Tensor) -> str | None:
    """Why the Triton kernels cannot be used for `x`, in a sentence; None when they can."""
    return kernels.why_not(x)


def resolve(
    backend: Backend, x: Tensor, *, no_kernel: str | None = None
) -> Literal["torch", "triton"]:
    """The backend to use for `x`: `auto` may fall back to torch, a name is used or refused.

    Args:
        backend: what was asked for.
        x: the tensor as the caller passed it.
        no_kernel: why this operation has no kernel, whatever the tensor; None where it has one.

    Raises:
        BackendError: `backend` is unknown, or is `triton` and cannot be used for `x`.
    """
    if backend not in get_args(Backend):
        names = ", ".join(get_args(Backend))
        raise BackendError("backend", f"must be one of {names}", repr(backend), "Use 'auto'.")
    if backend == "torch":
        return "torch"
    reason = no_kernel or why_not(x)
    if reason is None:
        return "triton"
    if backend == "triton":
        raise BackendError(
            "backend", "must be usable when asked for by name", "'triton'", f"Use 'auto': {reason}."
        )
    return "torch"


def msign_by_kernels(x: Tensor, polynomials: Sequence[Polynomial], *, half: bool) -> Tensor:
    """`U p(Σ) Vᵀ` for the singular values of `X/s`, `s = ‖XXᵀ‖_F^{1/2}`, where `resolve` gave `triton`.

    Args:
        x: shape (*batch, m, n).
        polynomials: applied in order; with `half` they must leave room for its rounding.
        half: products in bfloat16 with sums in float32, where X is not long; otherwise float32 to rounding.
    """
    # The kernels make two steps on one Gram matrix of a long X, which bfloat16 is too coarse for.
    short, long = sorted(x.shape[-2:])
    steady = half and 2 * long < 3 * short
    return kernels.msign(x, coefficients=polynomials, precision="bf16" if steady else "fp32")


def product_settings(device_type: str) -> tuple[Any, ...]:
    """torch's settings, each with an `fp32_precision`, of how float32 matrices are multiplied on a device."""
    if device_type == "cpu":
        return (torch.backends.mkldnn.matmul,)  # pyright: ignore[reportAttributeAccessIssue]
    return (torch.backends.cuda.matmul,) if device_type == "cuda" else ()


@functools.cache
def half_is_fast(device_type: str) -> bool:
    """Whether matrix products in bfloat16 run on hardware made for them.

    Told from the machine's capabilities, so that the same machine always computes the same bits. Measured with AVX-512 BF16:
    on an AMD processor 2.2 times the rate of float32 from 256 columns on, and slower below; on an Intel Xeon without AMX
    0.6 times.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu":
        return False
    return _processor_has("amx_bf16") or (_processor_has("avx512_bf16") and not _is_intel())


def _processor_has(*names: str) -> bool:
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in names)


def _is_intel() -> bool:
    """Whether Intel made the processor: its own library, which torch calls, is the quickest there."""
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return "GenuineIntel" in platform.processor()


WIDE_ENOUGH = 128
"""Smallest side from which a product in float32 is quicker by oneDNN."""


def onednn_product(a: Tensor, b: Tensor) -> Callable[[Tensor, Tensor], Tensor] | None:
    """`(X, Y) ↦ X Yᵀ` by oneDNN where that is the quicker way to `A B`; None elsewhere.

    torch multiplies float32 matrices on a CPU by its BLAS, which is MKL. Measured on AMD processors: with AVX-512 oneDNN
    does twice as much in a second, at the same accuracy; with AVX2 alone a tenth less. On an Intel Xeon with AVX-512 MKL is
    1.0 to 2.5 times as quick as oneDNN from 128 to 1536 columns. X must be contiguous, Y or Yᵀ too. It has no derivative: where one may be recorded, it is not offered.
    """
    if (
        a.dtype is not torch.float32
        or a.dim() != 2
        or b.dim() != 2
        or min(a.shape[0], a.shape[1], b.shape[1]) < WIDE_ENOUGH
        or torch.is_grad_enabled()
        or a.device.type != "cpu"
        or b.dtype is not torch.float32
        or torch.compiler.is_compiling()
    ):
        return None
    return _onednn()


@functools.cache
def _onednn() -> Callable[[Tensor, Tensor], Tensor] | None:
    linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    here = platform.machine().lower() in ("x86_64", "amd64")
    if linear is None or not here or not torch.backends.mkldnn.is_available():
        return None
    if not _processor_has("avx512_f") or _is_intel():
        return None
    return lambda x, y: linear(x, y, None, "none", [], "")
