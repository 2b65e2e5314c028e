"""Pooling bonds, which reduce an image to the mean or the maximum of each window."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

from modular_manifolds.arguments import check_count
from modular_manifolds.composition.space import Space
from modular_manifolds.nn.leaf import Bond
from modular_manifolds.nn.windows import Pair, Windows


class Pool(Bond):
    """An abstract pooling bond: each window of each channel becomes one number.

    Args:
        channels: the number of channels.
        kernel_size: one number for both directions, or (height, width); the stride is the kernel's
            size by default. Rows and columns that do not fill a window are left out.
        stride: as `kernel_size`.
        size: the image's (height, width).

    Raises:
        ArgumentError: a number is out of range, or no window fits.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int],
        *,
        size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
    ) -> None:
        kind = type(self).__name__
        channels = check_count(channels, argument=f"{kind}(channels)", what="channels")
        step = kernel_size if stride is None else stride
        windows = Windows.of(kind, size=size, kernel_size=kernel_size, stride=step)
        super().__init__(
            sensitivity=self.constant(windows),
            source=Space(channels * math.prod(windows.size)),
            target=Space(channels * math.prod(windows.outputs)),
        )
        self.channels = channels
        self.windows = windows

    @staticmethod
    @abstractmethod
    def constant(windows: Windows) -> float:
        """The Lipschitz constant in l2."""

    @abstractmethod
    def pooled(self, images: Tensor) -> Tensor:
        """The pooled images, from (batch, channels, height, width)."""

    @property
    def output_size(self) -> Pair:
        """(height, width) of the output images."""
        return self.windows.outputs

    def arguments(self) -> dict[str, object]:
        return {"channels": self.channels, **self.windows.arguments()}

    def forward(self, x: Tensor) -> Tensor:
        images = self.windows.images(x, self.channels, argument=f"{type(self).__name__}(x)")
        return self.windows.vectors(self.pooled(images), like=x)


class MeanPool(Pool):
    """The mean over each window; sensitivity `√(overlap/k)` in l2, with k entries in a window.

    `(Σ x)²/k² ≤ Σ x²/k` over a window (Cauchy-Schwarz), and an entry lies in at most `overlap` windows. By default
    this is one window, and the sensitivity is 1/√k. `√k * MeanPool(…)` keeps the l2 norm of constant images. With a
    kernel of the image's size it is the global mean.
    """

    @staticmethod
    def constant(windows: Windows) -> float:
        return math.sqrt(windows.overlap / windows.entries)

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        # k − 1 sums and a division: the error is at most γ times the mean of |x|, in any order.
        terms = self.windows.entries * torch.finfo(dtype).eps
        return terms / (1 - terms) * self.sensitivity * radius if terms < 1 else math.inf

    def pooled(self, images: Tensor) -> Tensor:
        return functional.avg_pool2d(images, self.windows.kernel, self.windows.stride)


class MaxPool(Pool):
    """The largest entry of each window; sensitivity `√overlap` in l2.

    The maximum changes by at most the largest change of an entry in its window, and an entry lies in at most `overlap`
    windows. By default this is one window, and the sensitivity is 1.
    """

    @staticmethod
    def constant(windows: Windows) -> float:
        return math.sqrt(windows.overlap)

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        del radius, dtype
        return 0.0

    def pooled(self, images: Tensor) -> Tensor:
        return functional.max_pool2d(images, self.windows.kernel, self.windows.stride)
