"""Tensors as stacks of matrices: conversion to at least float32, safe scaling and lengths, and host reads."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError, ShapeError
from modular_manifolds.linalg.backend import unit_length_by_kernels, why_not

MATRIX = (-2, -1)
"""The dimensions of one matrix; all dimensions before them are batch."""


def readable(x: Tensor) -> bool:
    """Whether the host may read entries of `x`: they lie in its memory, and no compiler is tracing."""
    return x.is_cpu and not torch.compiler.is_compiling()


def compiled_on_host(x: Tensor) -> bool:
    """Whether a compiler is tracing code for a CPU tensor, which the host may read when the graph runs."""
    return x.is_cpu and torch.compiler.is_compiling()


def as_matrices(x: Tensor, *, argument: str) -> Tensor:
    """`x` of shape (*batch, m, n) in at least float32; a vector of length n becomes (n, 1).

    Raises:
        ArgumentError: `x` is not a real floating-point tensor.
        ShapeError: `x` has no dimension or an empty one.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        seen = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ArgumentError(
            argument, "must be a real floating-point tensor", seen, "Convert it with .float()."
        )
    if x.dim() == 0 or x.numel() == 0:
        raise ShapeError(
            argument,
            "must have shape (n,) or (*batch, m, n) without empty dimensions",
            tuple(x.shape),
            "Pass a vector or a matrix, or a stack of matrices.",
        )
    matrices = x.unsqueeze(-1) if x.dim() == 1 else x
    return at_least_float32(matrices)


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32 if its dtype is coarser."""
    if x.dtype is torch.float32 or x.dtype is torch.float64:
        return x
    return x.to(torch.promote_types(x.dtype, torch.float32))


def restore(matrices: Tensor, like: Tensor) -> Tensor:
    """Give `matrices` the shape and dtype of `like`: undoes `as_matrices`."""
    shaped = matrices.squeeze(-1) if like.dim() == 1 else matrices
    return shaped if shaped.dtype is like.dtype else shaped.to(like.dtype)


def largest_entry(x: Tensor) -> Tensor:
    """`max |x_ij|` of each matrix, shape (*batch, 1, 1)."""
    if x.dim() == 2:
        # One pass, and no memory of the size of x.
        least, most = torch.aminmax(x if x.is_contiguous() else x.mT)
        return torch.maximum(-least, most).reshape(1, 1)
    return x.abs().amax(dim=MATRIX, keepdim=True)


def scale_exactly(x: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """Divide each matrix by a power of two, so that its largest entry is between 1/2 and 1; zero stays zero.

    Squares then neither overflow nor vanish. The division is exact: in a coarser `dtype` only the entries are rounded.
    The factor stays within the exponents of the dtype, so in float32 the largest entry may be as small as 2^-25 or as
    large as 4.
    """
    scale = exact_scale(x)
    return x * scale if dtype is None else x.to(dtype, copy=True).mul_(scale.to(dtype))


def exact_scale(x: Tensor) -> Tensor:
    """The factor of `scale_exactly`, shape (*batch, 1, 1)."""
    return exact_scale_for(largest_entry(x.detach()), x.dtype)


def exact_scale_for(largest: Tensor, dtype: torch.dtype) -> Tensor:
    """The factor of `scale_exactly` for matrices in `dtype` with these largest entries."""
    max_exponent = 126 if dtype is torch.float32 else 1022
    exponent = torch.frexp(largest).exponent.clamp(-max_exponent, max_exponent)
    return torch.exp2(-exponent.to(dtype))


def divide_by_largest_entry(x: Tensor, *, dim: int | tuple[int, int] = MATRIX) -> Tensor:
    """Divide by the largest entry over `dim`, in few operations; zero stays zero.

    The division rounds; `scale_exactly` does not.
    """
    largest = torch.linalg.vector_norm(x, torch.inf, dim=dim, keepdim=True)
    return x / largest.clamp_min(torch.finfo(x.dtype).tiny)


def unit_length(x: Tensor, *, dim: int | tuple[int, int] = MATRIX) -> Tensor:
    """`x / ‖x‖` over `dim` in few operations; zero stays zero.

    The squares are summed in float64, so entries of 1e-30 and of 1e+30 are treated alike. Lengths beyond the normal
    numbers of the dtype are clamped to them.
    """
    if not (x.is_cpu or torch.is_grad_enabled()) and why_not(x) is None:
        return unit_length_by_kernels(x, rows=dim == -1)
    numbers = torch.finfo(x.dtype)
    x = divide_by_largest_entry(x, dim=dim) if x.dtype is torch.float64 else x
    size = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float64)
    return x / size.clamp_(numbers.tiny, numbers.max).to(x.dtype)


PRODUCTS_MAX_NORM = 2.0**20
"""A Frobenius norm. Products of four matrices with norms between its inverse and it stay in range in float32."""


def scale_unless_moderate(x: Tensor) -> tuple[Tensor, float | None]:
    """X and its norm if it is one CPU matrix of a norm that needs no scaling; else `scale_exactly(X)` and None.

    For a small matrix the norm costs less than the exact scale.
    """
    if x.dim() == 2 and readable(x):
        size = float(torch.linalg.vector_norm(x))
        if 1 / PRODUCTS_MAX_NORM < size < PRODUCTS_MAX_NORM:
            return x, size
    return scale_exactly(x), None


SUMS_MAX_ENTRY = {torch.float32: 2.0**60, torch.float64: 2.0**500}
"""The largest entry for which products of two entries, and sums of many such products, do not overflow."""


def scale_unless_in_range(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """X times a scale at which sums of products with numbers of size 1 do not overflow, and the scale.

    A CPU tensor in range is returned as it is, with None. On an accelerator reading the range would wait, so X is always
    scaled.
    """
    if readable(x):
        least, most = torch.aminmax(x)
        if max(-least.item(), most.item()) < SUMS_MAX_ENTRY[x.dtype]:
            return x, None
    scale = exact_scale(x)
    return x * scale, scale


def moved_direction(point: Tensor, step: Tensor) -> Tensor:
    """`point + step` up to a positive factor: half of it if the sum could overflow, for callers that normalise it."""
    if readable(point):
        moved = point + step
        if math.isfinite(moved.sum().item()):
            return moved
    return torch.add(point * 0.5, step, alpha=0.5)


def divide_safely(x: Tensor, size: Tensor) -> Tensor:
    """`x / size`, or zero if `size` is zero; NaN stays NaN."""
    zero = size == 0
    return torch.where(zero, 0.0, x / torch.where(zero, 1.0, size))


def length(x: Tensor, *, dim: int | tuple[int, int]) -> Tensor:
    """Euclidean norm over `dim`, dimensions kept, without overflow or underflow.

    `‖x‖ = s ‖x/s‖` with `s = max |x|`: entries of 1e-30 and 1e+30 are measured alike.
    """
    largest = x.abs().amax(dim=dim, keepdim=True)
    scaled = divide_safely(x, largest)
    return largest * scaled.square().sum(dim=dim, keepdim=True).sqrt()


def normalise(x: Tensor, *, dim: int | tuple[int, int]) -> Tensor:
    """`x / ‖x‖` over `dim`; zero stays zero. Safe for entries of any finite size."""
    if not readable(x):
        return unit_length(x, dim=dim)
    largest = x.abs().amax(dim=dim, keepdim=True)
    scaled = divide_safely(x, largest)
    return divide_safely(scaled, scaled.square().sum(dim=dim, keepdim=True).sqrt())


def exceeds_rounding(x: Tensor, *, dim: int | tuple[int, int]) -> Tensor:
    """Whether the projection `x` of unit vectors is longer than rounding error alone; true for NaN.

    The projection of a gradient without a tangent part is rounding error. Divided by its own length it would be a
    step of full length in a random direction, away from a stationary point.
    """
    return torch.logical_not(length(x, dim=dim) <= projection_rounding(x))


def projection_rounding(x: Tensor) -> float:
    """A bound on the length of the rounding error of a projection of unit vectors like those of `x`."""
    return 16 * torch.finfo(x.dtype).eps * x.shape[-1] ** 0.5


def inner(a: Tensor, b: Tensor) -> Tensor:
    """`<A, B> = tr(AᵀB)` of each matrix, shape (*batch, 1, 1)."""
    return (a * b).sum(dim=MATRIX, keepdim=True)
