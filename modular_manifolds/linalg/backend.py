"""The only module that calls the accelerator kernels or names devices."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import modular_manifolds_kernels as kernels
import torch
from modular_manifolds_kernels import Bound as Bound
from torch import Tensor

from modular_manifolds.errors import BackendError
from modular_manifolds.linalg.coefficients import Polynomial

Backend = Literal["auto", "torch", "triton"]


def why_not(x: Tensor) -> str | None:
    """The reason why the Triton kernels cannot be used for `x`, as a sentence; None if they can."""
    return kernels.why_not(x)


def resolve(
    backend: Backend, x: Tensor, *, no_kernel: str | None = None
) -> Literal["torch", "triton"]:
    """The backend to use for `x`: `auto` may fall back to torch; a named backend is used or refused.

    Args:
        backend: the caller's choice.
        x: the tensor as the caller passed it.
        no_kernel: the reason why this operation has no kernel for any tensor; None if it has one.

    Raises:
        BackendError: `backend` is unknown, or is `triton` and cannot be used for `x`.
    """
    return _resolved(backend, lambda: no_kernel or why_not(x))


def resolve_on(
    backend: Backend, device_type: str, dtype: torch.dtype
) -> Literal["torch", "triton"]:
    """The backend to use for tensors of `dtype` on the current device of this type; as `resolve`."""
    return _resolved(backend, lambda: kernels.why_not_on(device_type, dtype))


def _resolved(
    backend: Backend, why_not_triton: Callable[[], str | None]
) -> Literal["torch", "triton"]:
    if backend not in get_args(Backend):
        names = ", ".join(get_args(Backend))
        raise BackendError("backend", f"must be one of {names}", repr(backend), "Use 'auto'.")
    if backend == "torch":
        return "torch"
    reason = why_not_triton()
    if reason is None:
        return "triton"
    if backend == "triton":
        raise BackendError(
            "backend", "must be usable if it is named", "'triton'", f"Use 'auto': {reason}."
        )
    return "torch"


def msign_by_kernels(
    x: Tensor,
    polynomials: Sequence[Polynomial],
    *,
    half: bool,
) -> Tensor:
    """`U p(Σ) Vᵀ` for the singular values of `X/s`, `s = ‖XXᵀ‖_F^{1/2}`; call it if `resolve` returned `triton`.

    Specification, and the path without kernels: `gram_newton_schulz.gram_iterate`.

    Args:
        x: shape (*batch, m, n).
        polynomials: applied in order; with `half` their ranges must allow for bfloat16's rounding.
        half: products in bfloat16 with sums in float32, otherwise float32 to rounding.
    """
    precision = "bf16" if half else "fp32"
    return kernels.msign(x, coefficients=polynomials, precision=precision)


def skew_msign_by_kernels(
    gamma: Tensor, polynomials: Sequence[Polynomial], *, half: bool
) -> tuple[Tensor, Tensor]:
    """The result of the polynomials on `Γ/s`, and `s = ‖ΓΓᵀ‖_F^{1/2}`, for skew Γ.

    Specification, and the path without kernels: `skew_newton_schulz.skew_iterate`. The kernels do not use the skew
    symmetry of Γ, so the result is skew up to the rounding of the products: the caller takes its skew part. Nothing is
    read on the host.

    Args:
        gamma: shape (*batch, n, n), entries of any size.
        polynomials: applied in order, as in `msign_by_kernels`.
        half: products in bfloat16 with sums in float32, otherwise float32 to rounding.

    Returns:
        The result in the dtype of gamma, and s of shape (*batch, 1, 1), float32: zero for zero, NaN for NaN.
    """
    precision = "bf16" if half else "fp32"
    result, scale = kernels.msign_and_scale(gamma, coefficients=polynomials, precision=precision)
    return result, scale.unsqueeze(-1).unsqueeze(-1)


def stiefel_retract_by_kernels(
    point: Tensor, step: Tensor, length: float | Tensor, corrections: int
) -> Tensor:
    """`X = (W + A)/√(1 + η²)`, then `X ← 1.5 X − 0.5 X XᵀX` `corrections` times.

    Specification, and the path without kernels: the retraction of the unit `Stiefel`. A tangent step with
    `AᵀA = η² I` lands exactly. In directions where A is zero, `XᵀX` is off by η², and every correction maps an error δ
    to ¾ δ².

    Args:
        point: W of shape (*batch, m, n), orthonormal columns (rows if it is wide).
        step: A, same shape, multiplied by its length already.
        length: η, a number or a tensor on the device of W: one number for all, or one a matrix, of shape `(*batch,)` or
            `(*batch, 1, 1)`. Nothing is read on the host.
        corrections: the number of cubic steps.
    """
    if isinstance(length, Tensor) and length.dim() == point.dim():
        length = length.squeeze(-1).squeeze(-1)
    landed, _ = kernels.stiefel_retract(
        point, step, eta=length, unit=False, corrections=corrections, measured=False
    )
    return landed


def certify_by_kernels_(
    direction: Tensor,
    gradient: Tensor,
    omega: Tensor,
    scale: Tensor,
    bound: Bound,
    *,
    pair: tuple[Tensor, Tensor] | None = None,
    info: Tensor | None = None,
) -> Tensor:
    """The gap of a skew direction in two launches; the direction becomes zero if the gradient has no tangent part.

    Specification, and the path without kernels: `PolynomialPlan`. Nothing is read on the host.

    Args:
        direction: A of shape (*batch, m, n), written to.
        gradient: G, same shape.
        omega: Ω before the cubic step, shape (*batch, k, k).
        scale: s of 2Γ, shape (*batch, 1, 1).
        bound: the numbers of the bound.
        pair: two stacks whose inner products are `<Γ, Ω>` after the cubic step; `−<G, A>` if None.
        info: the status of the Cholesky factorisation, shape (*batch); None if there was none.

    Returns:
        The gap, shape (*batch).
    """
    scale = scale.squeeze(-1).squeeze(-1)
    return kernels.certify_(direction, gradient, omega, scale, bound, pair=pair, info=info)


def descend_by_kernels_(
    gradients: Sequence[Tensor],
    momenta: Sequence[Tensor],
    ok: Tensor,
    mu: float,
    *,
    nesterov: bool,
    turned: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    """Update the momenta in place and stack them (the gradients if there are none), in one pass over memory.

    Specification, and the path without kernels: `optim.on_device`, by operators on lists. One launch takes 48 weights of
    one orientation.

    Args:
        gradients: in the shapes of the weights, at least two dimensions; they count as zero if `ok` is false.
        momenta: float32, contiguous, written to if `ok` is true; may be empty.
        ok: one bool on the device. Nothing is read on the host.
        mu: in [0, 1).
        nesterov: whether to look ahead.
        turned: for each weight whether it is transposed in the stack.

    Returns:
        The stack, float32, with one batch dimension; and `max |G|` of each of its rows, shape (batch, rows).
    """
    return kernels.descend_(gradients, momenta, ok, mu=mu, nesterov=nesterov, turned=turned)


def unit_length_by_kernels(x: Tensor, *, rows: bool) -> Tensor:
    """`x / ‖x‖` for each matrix or each row, without a derivative; zero stays zero.

    Specification, and the path without kernels: `matrices.unit_length`.

    Args:
        x: shape (*batch, m, n).
        rows: whether each row is divided by its own length.
    """
    return kernels.unit_length(x, rows=rows)


def land_by_kernels_(
    weights: Sequence[Tensor],
    masters: Sequence[Tensor],
    landed: Tensor,
    start: Tensor,
    moving: Tensor,
    *,
    turned: Sequence[bool],
) -> None:
    """Write a stack back to the weights and their master copies in one pass over memory.

    Specification, and the path without kernels: `optim.on_device`, by operators on lists.

    Args:
        weights: the matrices in their dtype, written to.
        masters: their float32 copies, written to; empty if there are none.
        turned: for each weight, whether it is stored as the transpose of its row in the stack.
        landed: float32 stacks: the new values of rows that move, and the old values of rows that stay.
        start: as `landed`.
        moving: whether a row moves, in a shape that expands to one bool a row.
    """
    kernels.land_(weights, landed, start, moving, masters=masters, turned=turned)


def gate_by_kernels_(largest: Tensor, counts: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Decide in one launch whether a step is taken and which weights move, and count both.

    Specification, and the path without kernels: `optim.on_device`, by operators.

    Args:
        largest: the largest entry of each gradient, shape (weights,), float32.
        counts: the steps of each weight, one entry that stays unchanged, and the number of skipped steps; written to.
        bound: entries of at least this size count as infinite.
    """
    return kernels.gate_(largest, counts, bound=bound)


def product_settings(device_type: str) -> tuple[Any, ...]:
    """torch's settings for float32 matrix products on a device, each with an `fp32_precision`."""
    if device_type == "cpu":
        return (torch.backends.mkldnn.matmul,)  # pyright: ignore[reportAttributeAccessIssue]
    return (torch.backends.cuda.matmul,) if device_type == "cuda" else ()


@functools.cache
def half_is_fast(device_type: str) -> bool:
    """Whether this machine has fast hardware for bfloat16 matrix products.

    The machine's capabilities decide, not a measurement, so the same machine always computes the same bits. Measured
    with AVX-512 BF16, relative to float32: 2.2 times the rate on an AMD processor from 256 columns on, and slower below;
    0.6 times on an Intel Xeon without AMX.
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
    """Whether Intel made the processor, for which MKL, torch's BLAS, is fastest."""
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return "GenuineIntel" in platform.processor()


@functools.cache
def onednn_linear() -> Callable[..., Tensor] | None:
    """oneDNN's `X Yᵀ` if it is faster on this processor than MKL, torch's BLAS, for float32; otherwise None.

    Measured at equal accuracy: on AMD processors oneDNN is 2.0 times as fast as MKL with AVX-512, and 0.9 times with
    AVX2 alone. On an Intel Xeon with AVX-512, MKL is 1.0 to 2.5 times as fast as oneDNN from 128 to 1536 columns.
    """
    linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    if linear is None or not is_x86 or not torch.backends.mkldnn.is_available():
        return None
    return linear if _processor_has("avx512_f") and not _is_intel() else None
