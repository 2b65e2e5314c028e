"""A convolution as matrices, one a frequency: its operator norm without the matrix of the whole map."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modular_manifolds.linalg.rounding import largest_singular_value

EPS = torch.finfo(torch.float64).eps


def convolution_norm(
    kernel: Tensor, *, size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> float:
    """An upper bound on `‖x ↦ conv2d(x)‖₂` for images of `size` padded with zeros, computed in float64.

    The map is part of the convolution on a torus of N ≥ size + min(padding, kernel − 1) positions in each
    direction: there no window that reaches over the edge of the image meets its other side, and windows
    that lie in the padding alone give zero. A convolution on a torus is block diagonal in the Fourier
    basis, so its norm is the largest `σ_max` of the blocks. With a stride s, which divides N, the
    frequencies that differ by a multiple of N/s alias, and stand side by side in one block, over √s.

    The error of the blocks and of their decomposition is added. Tight up to the border: equal to the norm
    of the periodic convolution.

    Args:
        kernel: shape (groups, out, in, height, width), of each group.

    Source: Sedghi, Gupta, Long, "The singular values of convolutional layers" (2019), for stride 1.
    """
    kernel = kernel.detach().to("cpu", torch.float64)
    blocks = _blocks(kernel, size, stride, padding)
    # Of e^{−iθ}, θ = 2π r/N with r < N whole: three roundings of an angle below 2π and one of each part
    # are 11 eps. Two such factors, their product with an entry and sums of h + w terms, each complex:
    # every entry of a block is within (h + w + 32) eps of Σ|kernel|, over the Frobenius norm of which
    # stands √(h w) by Cauchy-Schwarz.
    high, wide = kernel.shape[-2:]
    entries = torch.linalg.vector_norm(kernel.flatten(1), dim=-1).amax()
    error = (high + wide + 32) * EPS * math.sqrt(high * wide) * float(entries)
    return (largest_singular_value(blocks) + error) * (1 + 4 * EPS)


def _blocks(
    kernel: Tensor, size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The blocks, shape (groups, M, M', out, in · s · s') in complex128, M = N/s frequencies a direction.

    Of a real kernel the blocks at opposite frequencies are conjugate, so half of one direction is enough.
    """
    high, wide = kernel.shape[-2:]
    rows = _waves(high, size[0], stride[0], padding[0])
    columns = _waves(wide, size[1], stride[1], padding[1])
    columns = columns[:, :, : columns.shape[-1] // 2 + 1]
    symbol = torch.einsum("gochw,wbn->gochbn", kernel.to(torch.complex128), columns)
    symbol = torch.einsum("gochbn,ham->gmnocab", symbol, rows).flatten(-3)
    return symbol / math.sqrt(stride[0] * stride[1])


def _waves(kernel: int, size: int, stride: int, padding: int) -> Tensor:
    """`exp(−2πi k (a M + m)/N)`, shape (kernel, stride, M): position k, alias a, frequency m."""
    least = size + min(padding, kernel - 1)
    torus = -(-least // stride) * stride
    turns = torch.outer(*(torch.arange(each, device="cpu") for each in (kernel, torus))) % torus
    angles = turns.to(torch.float64) * (2 * math.pi) / torus
    return torch.polar(torch.ones_like(angles), -angles).unflatten(-1, (stride, -1))
