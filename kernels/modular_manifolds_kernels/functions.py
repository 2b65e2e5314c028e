"""The public functions for the matrix sign, the retraction and the pre-step: checks and defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor

from modular_manifolds_kernels import operators
from modular_manifolds_kernels.coefficients import POLAR_EXPRESS, Polynomial

PRECISIONS: Final = ("auto", "bf16", "fp32")


def msign(
    x: Tensor,
    *,
    coefficients: Sequence[Polynomial] = POLAR_EXPRESS,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    largest: Tensor | None = None,
) -> Tensor:
    """The nearest matrix with orthonormal columns (rows, if X is wide), by polynomials.

    `U p(Σ) Vᵀ` for `X = U Σ Vᵀ`: p applies the `coefficients` in order to the singular values of
    `X/‖X Xᵀ‖_F^{1/2}`. Zero gives zero, and NaN gives NaN. The scale of X does not matter, also for entries of
    1e-30 and 1e+30. The same input gives the same bits. Differentiable: the derivative is that of `U Vᵀ`.

    Args:
        x: shape (*batch, m, n). On cuda float32, bfloat16 or float16 by kernels; elsewhere any
            floating-point dtype by torch.
        coefficients: triples (a, b, c) of `a σ + b σ³ + c σ⁵`. The default, eight steps, maps
            normalised singular values of at least 1e-3 to one.
        precision: of the operands of the matrix products on cuda: `"fp32"` is float32 to rounding,
            `"bf16"` is bfloat16 with float32 sums. `"auto"` is `"bf16"` for inputs in half
            precision, else `"fp32"`. On other devices torch computes in at least float32.
        largest: the `largest` of `pre_step_` for the same x; it saves a pass over memory.

    Raises:
        ValueError: an argument breaks its rule.

    Source: Amsel et al. (2025, arXiv 2505.16932), the coefficients; Zhang et al. (2026), the Gram form.
    """
    result, _ = msign_and_scale(x, coefficients=coefficients, precision=precision, largest=largest)
    return result


def msign_and_scale(
    x: Tensor,
    *,
    coefficients: Sequence[Polynomial] = POLAR_EXPRESS,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    largest: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The result of `msign`, and the scale `s = ‖X Xᵀ‖_F^{1/2}` by which X was divided.

    Up to the rounding of the products, s is at least the largest singular value of x and at most `min(m, n)^{1/4}`
    times that. It needs no other launch, has no derivative, and nothing is read on the host. It is zero for zero and
    NaN for NaN.

    Returns:
        The result of `msign`; and s of shape (*batch,), in float32, or float64 for float64 matrices.

    Raises:
        ValueError: an argument breaks its rule.
    """
    check_matrices(x, "msign(x)")
    if not coefficients:
        raise ValueError("coefficients must hold at least one triple, got none. Pass the default.")
    if precision not in PRECISIONS:
        names = ", ".join(PRECISIONS)
        raise ValueError(f"precision must be one of {names}, got {precision!r}. Pass 'auto'.")
    if precision == "auto":
        half = x.dtype in (torch.bfloat16, torch.float16)
        precision = "bf16" if half else "fp32"
    flat = [float(value) for polynomial in coefficients for value in polynomial]
    return operators.msign(x, flat, precision, largest)


def stiefel_retract(
    w: Tensor,
    a: Tensor,
    *,
    eta: float | Tensor,
    unit: bool = True,
    corrections: int = 1,
    measured: bool = True,
) -> tuple[Tensor, Tensor]:
    """Move along A and land on the Stiefel manifold; also return the distance from it.

    `X = (W + ηA)/√(1+η²)` is exact if A is tangent with `AᵀA = I`. Then each correction
    `X ← 1.5 X − 0.5 X XᵀX` squares the distance from the manifold. The residual is `max |XᵀX − I|` (`X Xᵀ` for
    wide X) of the stored result. Not differentiable.

    Args:
        w: shape (*batch, m, n), a point: orthonormal columns (rows if wide).
        a: same shape, a direction; the whole step if `unit` is false.
        eta: length of the step: a number, or a tensor on the device of w that expands to (*batch,), one number for
            each matrix. Kernels read it on the device, so the host does not wait.
        unit: whether A is multiplied by η. If not, `X = (W + A)/√(1+η²)`.
        corrections: the number of cubic steps.
        measured: whether to compute the residual, which needs another product for larger matrices.

    Returns:
        The new point, and the residual of shape (*batch,), or (0,) if it is not measured.

    Raises:
        ValueError: an argument breaks its rule.
    """
    check_matrices(w, "stiefel_retract(w)")
    if a.shape != w.shape or a.device != w.device:
        seen = f"{tuple(a.shape)} on {a.device}"
        raise ValueError(f"a must have the shape and device of w, got {seen}. Move or reshape it.")
    if corrections < 0:
        raise ValueError(f"corrections must not be negative, got {corrections}. Pass 1.")
    lengths = None
    if isinstance(eta, Tensor):
        lengths, eta = _one_a_matrix(eta, w), 1.0
    return operators.stiefel_retract(w, a, float(eta), corrections, lengths, unit, measured)


def _one_a_matrix(eta: Tensor, w: Tensor) -> Tensor:
    if eta.device == w.device:
        try:
            return eta.expand(w.shape[:-2])
        except RuntimeError:
            pass
    seen = f"{tuple(eta.shape)} on {eta.device}"
    raise ValueError(
        f"eta must be a number or expand to {tuple(w.shape[:-2])} on {w.device}, got {seen}."
        " Pass one length for each matrix, on their device."
    )


class PreStep(NamedTuple):
    """The result of the pre-step.

    Args:
        direction: the momentum itself, or with Nesterov the look-ahead in a new tensor.
        largest: `max |direction|` of parts of each matrix, shape (*batch, parts): pass it to `msign`.
        squares: for each part the sum of squares of its entries divided by its maximum, same shape.
    """

    direction: Tensor
    largest: Tensor
    squares: Tensor

    def norm(self) -> Tensor:
        """`‖direction‖_F` of each matrix, shape (*batch,), without overflow or underflow of squares."""
        largest = self.largest.amax(dim=-1, keepdim=True)
        relative = self.largest / torch.where(largest == 0, 1.0, largest)
        return largest.squeeze(-1) * (relative.square() * self.squares).sum(dim=-1).sqrt()


def pre_step_(momentum: Tensor, gradient: Tensor, *, mu: float, nesterov: bool = False) -> PreStep:
    """Update the momentum in place and measure the direction, in one pass over memory.

    `B ← μB + (1−μ)G`; the direction is B, or with Nesterov `μB + (1−μ)G` with the new B.

    Args:
        momentum: shape (*batch, m, n), written to; its batch dimensions must be viewable as one.
        gradient: same shape.
        mu: in [0, 1).
        nesterov: whether the direction is Nesterov's look-ahead.

    Raises:
        ValueError: an argument breaks its rule.
    """
    check_matrices(momentum, "pre_step_(momentum)")
    if gradient.shape != momentum.shape or gradient.device != momentum.device:
        seen = f"{tuple(gradient.shape)} on {gradient.device}"
        raise ValueError(
            f"gradient must have the shape and device of momentum, got {seen}. Move it."
        )
    if not 0 <= mu < 1:
        raise ValueError(f"mu must lie in [0, 1), got {mu}. Pass 0.95.")
    out, largest, squares = operators.pre_step_(momentum, gradient, float(mu), nesterov)
    return PreStep(out if nesterov else momentum, largest, squares)


def check_matrices(x: Tensor, argument: str) -> None:
    """Refuse a tensor that is not a stack of real matrices."""
    if x.dim() < 2 or not x.is_floating_point():
        raise ValueError(
            f"{argument} must be real and floating-point with shape (*batch, m, n),"
            f" got {x.dtype} of shape {tuple(x.shape)}. Reshape or convert it."
        )
