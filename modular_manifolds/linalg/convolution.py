"""The operator norm of a convolution from its Fourier blocks, without the matrix of the whole map."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modular_manifolds.linalg.rounding import largest_singular_value

EPS = torch.finfo(torch.float64).eps
"""The relative spacing of float64."""


def convolution_norm(
    kernel: Tensor, *, size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> float:
    """An upper bound on `‖x ↦ conv2d(x)‖₂` for images of `size` padded with zeros, computed in float64.

    The map is a restriction of the convolution on a torus of N ≥ size + min(padding, kernel − 1) positions in
    each direction. On this torus a window beyond the edge of the image does not wrap to its other side, and
    windows that lie in the padding alone give zero. A convolution on a torus is block diagonal in the Fourier
    basis, so its norm is the largest `σ_max` of the blocks. With a stride s, which divides N, the
    frequencies that differ by a multiple of N/s alias. They stand side by side in one block, divided by √s.

    The rounding errors of the blocks and of their decomposition are added. The bound is tight up to the border:
    it equals the norm of the periodic convolution.

    Args:
        kernel: shape (groups, out, in, height, width).

    Source: Sedghi, Gupta, Long, "The singular values of convolutional layers" (2019), for stride 1.
    """
    kernel = kernel.detach().to("cpu", torch.float64)
    blocks = _blocks(kernel, size, stride, padding)
    # The error of e^{−iθ}, θ = 2π r/N with a whole r < N, is at most 11 eps: three roundings of an angle below
    # 2π and one of each component. An entry of a block multiplies two such factors by a kernel entry and sums
    # h + w complex terms, so its error is at most (h + w + 32) eps Σ|kernel|. By Cauchy-Schwarz, Σ|kernel| is
    # at most √(h w) times the Frobenius norm.
    height, width = kernel.shape[-2:]
    entries = torch.linalg.vector_norm(kernel.flatten(1), dim=-1).amax()
    error = (height + width + 32) * EPS * math.sqrt(height * width) * float(entries)
    return (largest_singular_value(blocks) + error) * (1 + 4 * EPS)


def _blocks(
    kernel: Tensor, size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The blocks, shape (groups, M, M', out, in · s · s') in complex128, M = N/s frequencies a direction.

    The blocks of a real kernel at opposite frequencies are conjugate, so half of one direction is enough.
    """
    height, width = kernel.shape[-2:]
    rows = _waves(height, size[0], stride[0], padding[0])
    columns = _waves(width, size[1], stride[1], padding[1])
    columns = columns[:, :, : columns.shape[-1] // 2 + 1]
    symbol = torch.einsum("gochw,wbn->gochbn", kernel.to(torch.complex128), columns)
    symbol = torch.einsum("gochbn,ham->gmnocab", symbol, rows).flatten(-3)
    return symbol / math.sqrt(stride[0] * stride[1])


def _waves(kernel: int, size: int, stride: int, padding: int) -> Tensor:
    """`exp(−2πi k (a M + m)/N)`, shape (kernel, stride, M), for position k, alias a and frequency m."""
    min_torus = size + min(padding, kernel - 1)
    torus = -(-min_torus // stride) * stride
    multiples = torch.outer(*(torch.arange(each, device="cpu") for each in (kernel, torus))) % torus
    angles = multiples.to(torch.float64) * (2 * math.pi) / torus
    return torch.polar(torch.ones_like(angles), -angles).unflatten(-1, (stride, -1))
