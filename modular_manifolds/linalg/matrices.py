"""How a tensor is read as matrices, in a precision that is safe to compute in, and whether its numbers may be read."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError, ShapeError
from modular_manifolds.linalg.backend import unit_length_by_kernels, why_not

MATRIX = (-2, -1)
"""The dimensions of one matrix; all dimensions before them are batch."""


def readable(x: Tensor) -> bool:
    """Whether numbers of `x` may be read on the host: they lie in its memory, and no compiler is tracing."""
    return x.is_cpu and not torch.compiler.is_compiling()


def compiled_on_host(x: Tensor) -> bool:
    """Whether a compiler is tracing code for numbers in the host's memory, which may be read when the graph runs."""
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


def near_one(x: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """A copy of each matrix with its largest entry between 1/2 and 1, so that squares neither overflow nor vanish.

    It is divided by a power of two: exactly, so in a coarser `dtype` rounding is that of the entries alone.
    Zero stays zero. At the ends of what a dtype can hold the factor ends too; entries are then between 2^-25 and 4 in
    float32, which is as good.
    """
    scale = scale_near_one(x)
    return x * scale if dtype is None else x.to(dtype, copy=True).mul_(scale.to(dtype))


def scale_near_one(x: Tensor) -> Tensor:
    """The factor of `near_one`, shape (*batch, 1, 1)."""
    furthest = 126 if x.dtype is torch.float32 else 1022
    exponent = torch.frexp(largest_entry(x.detach())).exponent.clamp(-furthest, furthest)
    return torch.exp2(-exponent.to(x.dtype))


def bring_to_one(x: Tensor, *, dim: int | tuple[int, int] = MATRIX) -> Tensor:
    """A copy with the largest entry over `dim` at 1, in few operations; zero stays zero.

    The division rounds, so use `near_one` if its digits matter.
    """
    largest = torch.linalg.vector_norm(x, torch.inf, dim=dim, keepdim=True)
    return x / largest.clamp_min(torch.finfo(x.dtype).tiny)


def unit_length(x: Tensor, *, dim: int | tuple[int, int] = MATRIX) -> Tensor:
    """`x / ‖x‖` over `dim` in few operations; zero stays zero.

    The squares are added up in float64, so entries of 1e-30 and of 1e+30 are treated alike. Lengths beyond the normal
    numbers of the dtype count as the nearest one.
    """
    if not (x.is_cpu or torch.is_grad_enabled()) and why_not(x) is None:
        return unit_length_by_kernels(x, rows=dim == -1)
    numbers = torch.finfo(x.dtype)
    x = bring_to_one(x, dim=dim) if x.dtype is torch.float64 else x
    size = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float64)
    return x / size.clamp_(numbers.tiny, numbers.max).to(x.dtype)


MODERATE = 2.0**20
"""Matrices between this length and its inverse have products of four that neither overflow nor vanish in float32."""


def of_moderate_size(x: Tensor) -> tuple[Tensor, float | None]:
    """X itself and its length if it is one matrix in the host's memory, of moderate length; else as `near_one` makes it.

    Finding the largest entry, a power of two, and multiplying by it is more than the length of a small matrix.
    """
    if x.dim() == 2 and readable(x):
        size = float(torch.linalg.vector_norm(x))
        if 1 / MODERATE < size < MODERATE:
            return x, size
    return near_one(x), None


FAR_OUT = {torch.float32: 2.0**60, torch.float64: 2.0**500}
"""Entries below this have products of two, and sums of many such products, that do not overflow."""


def in_range(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """X at a size at which sums of products with numbers of size 1 do not overflow, and the factor; None for X itself.

    In the host's memory a matrix is multiplied only if it must be. Elsewhere to ask would be to wait.
    """
    if readable(x):
        least, most = torch.aminmax(x)
        if max(-least.item(), most.item()) < FAR_OUT[x.dtype]:
            return x, None
    scale = scale_near_one(x)
    return x * scale, scale


def total(point: Tensor, step: Tensor) -> Tensor:
    """`point + step`, or half of it if the sum is out of range: enough for whoever needs its direction only."""
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


def more_than_rounding(x: Tensor, *, dim: int | tuple[int, int]) -> Tensor:
    """Whether what a projection left of vectors of unit length is more than its rounding.

    A gradient without a tangent part leaves rounding; divided by its own length that would be a step
    of full length in a random direction, away from a stationary point. NaN is more than rounding.
    """
    return torch.logical_not(length(x, dim=dim) <= projection_rounding(x))


def projection_rounding(x: Tensor) -> float:
    """How long the rounding is that a projection leaves of vectors of unit length, like those of `x`."""
    return 16 * torch.finfo(x.dtype).eps * x.shape[-1] ** 0.5


def inner(a: Tensor, b: Tensor) -> Tensor:
    """`<A, B> = tr(AᵀB)` of each matrix, shape (*batch, 1, 1)."""
    return (a * b).sum(dim=MATRIX, keepdim=True)
