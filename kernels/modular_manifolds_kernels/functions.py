"""The functions to call: the matrix sign, the retraction and the pre-step, checked and given their defaults."""

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

    `U p(Σ) Vᵀ` for `X = U Σ Vᵀ`: p applies the `coefficients` in order to singular values that
    were divided by `‖X Xᵀ‖_F^{1/2}`. Zero gives zero, NaN gives NaN; entries of 1e-30 and 1e+30 give the
    same. The same input gives the same bits. Differentiable: the derivative is that of `U Vᵀ`.

    Args:
        x: shape (*batch, m, n). On cuda float32, bfloat16 or float16 by kernels; elsewhere any
            floating-point dtype by torch.
        coefficients: triples (a, b, c) of `a σ + b σ³ + c σ⁵`. The default, eight steps, brings
            singular values of a thousandth of the normalised size to one.
        precision: of the operands of the matrix products on cuda: `"fp32"` is float32 to rounding,
            `"bf16"` is bfloat16 with float32 sums. `"auto"` is `"bf16"` for inputs in half
            precision, else `"fp32"`. torch elsewhere computes in at least float32.
        largest: what `pre_step_` found of the same x; it saves a pass over memory.

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
    """The result of `msign`, and the `s = ‖X Xᵀ‖_F^{1/2}` that its singular values were divided by.

    s is at least the largest singular value of x and at most `min(m, n)^{1/4}` times that, both to the rounding of
    the products. It comes from the same launches, has no derivative, and nothing is read on the host. Zero has the
    scale zero, NaN gives NaN.

    Returns:
        The result as of `msign`, and s of shape (*batch,): float32, of float64 matrices float64.

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
    """Move along A and land on the Stiefel manifold; and how far from it the result is.

    `X = (W + ηA)/√(1+η²)`, exact if A is tangent with `AᵀA = I`; then `X ← 1.5 X − 0.5 X XᵀX`, each
    of which squares what is left. The residual is `max |XᵀX − I|` (`X Xᵀ` for wide X) of what is
    stored. Not differentiable.

    Args:
        w: shape (*batch, m, n), a point: orthonormal columns (rows, if wide).
        a: same shape, a direction, or without `unit` the whole step.
        eta: length of the step: a number, or a tensor on the device of w that expands to (*batch,), one number a
            matrix. A kernel reads it there, nothing waits.
        unit: whether A is to be multiplied by η. If not, `X = (W + A)/√(1+η²)`.
        corrections: how many cubic steps.
        measured: whether to find the residual, which takes larger matrices another product.

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
        " Pass one length a matrix, where the matrices are."
    )


class PreStep(NamedTuple):
    """The result of the pre-step.

    Args:
        direction: what is descended: the momentum itself, or with Nesterov a new tensor.
        largest: `max |direction|` of parts of each matrix, shape (*batch, parts): pass it to `msign`.
        squares: sums of the squares of each part divided by its maximum, same shape.
    """

    direction: Tensor
    largest: Tensor
    squares: Tensor

    def norm(self) -> Tensor:
        """`‖direction‖_F` of each matrix, shape (*batch,), without overflow or underflow of squares."""
        whole = self.largest.amax(dim=-1, keepdim=True)
        share = self.largest / torch.where(whole == 0, 1.0, whole)
        return whole.squeeze(-1) * (share.square() * self.squares).sum(dim=-1).sqrt()


def pre_step_(momentum: Tensor, gradient: Tensor, *, mu: float, nesterov: bool = False) -> PreStep:
    """Update the momentum in place and measure what is descended, in one pass over memory.

    `B ← μB + (1−μ)G`; descended is B, or with Nesterov `μB + (1−μ)G` with the new B.

    Args:
        momentum: shape (*batch, m, n), written to; its batch dimensions must be viewable as one.
        gradient: same shape.
        mu: in [0, 1).
        nesterov: whether to look ahead.

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
    """Refuse what is not a stack of matrices."""
    if x.dim() < 2 or not x.is_floating_point():
        raise ValueError(
            f"{argument} must be real and floating-point with shape (*batch, m, n),"
            f" got {x.dtype} of shape {tuple(x.shape)}. Reshape or convert it."
        )
