"""Sliding windows over an image: their number, and the number of windows that hold one entry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from modular_manifolds.arguments import as_whole_number
from modular_manifolds.errors import ArgumentError, ShapeError
from modular_manifolds.nn.tracing import has_sizes

Pair = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """Windows of `kernel` entries every `stride`, over images of `size` with `padding` zeros at each side.

    An image of C channels is a vector of C · height · width features: (C, height, width), flattened.

    Raises:
        ArgumentError: no window fits.
    """

    size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)

    @classmethod
    def of(
        cls,
        kind: str,
        *,
        size: int | Pair,
        kernel_size: int | Pair,
        stride: int | Pair,
        padding: int | Pair = 0,
    ) -> Windows:
        """The windows of a module `kind` with these arguments; one number is used for both directions."""
        windows = cls(
            _pair(size, f"{kind}(size)", least=1),
            _pair(kernel_size, f"{kind}(kernel_size)", least=1),
            _pair(stride, f"{kind}(stride)", least=1),
            _pair(padding, f"{kind}(padding)", least=0),
        )
        if min(windows.outputs) < 1:
            raise ArgumentError(
                f"{kind}(kernel_size)",
                "must fit into the image with its padding",
                f"{windows.kernel} in {windows.size} padded by {windows.padding}",
                "Pass a smaller kernel, or more padding.",
            )
        return windows

    @property
    def outputs(self) -> Pair:
        """`⌊(size + 2 padding − kernel)/stride⌋ + 1` windows in each direction."""
        height, width = (
            (size + 2 * padding - kernel) // stride + 1
            for size, kernel, stride, padding in zip(
                self.size, self.kernel, self.stride, self.padding, strict=True
            )
        )
        return height, width

    @property
    def overlap(self) -> int:
        """The largest number of windows that hold one entry: `min(⌈kernel/stride⌉, outputs)` in each direction.

        The result is the product over both directions. The windows over one position begin in an interval of `kernel`
        positions, which contains at most ⌈kernel/stride⌉ multiples of `stride`.
        """
        height, width = (
            min(-(-kernel // stride), outputs)
            for kernel, stride, outputs in zip(self.kernel, self.stride, self.outputs, strict=True)
        )
        return height * width

    @property
    def entries(self) -> int:
        """The number of entries of one channel in a window."""
        return self.kernel[0] * self.kernel[1]

    def images(self, x: Tensor, channels: int, *, argument: str) -> Tensor:
        """Vectors as a batch of images: (*batch, C · height · width) to (batch, C, height, width)."""
        features = channels * self.size[0] * self.size[1]
        if has_sizes(x) and x.shape[-1] != features:
            raise ShapeError(
                argument,
                f"must have {features} features, {channels} channels of {self.size[0]} × {self.size[1]}",
                tuple(x.shape),
                "Put mm.Flatten() before it: images are passed between modules as vectors.",
            )
        return x.reshape(-1, channels, *self.size)

    def vectors(self, y: Tensor, *, like: Tensor) -> Tensor:
        """A batch of images as vectors, with the leading dimensions of `like`."""
        features = (y.shape[1] * math.prod(self.outputs),)
        # Not unpacked: for `torch.fx` the leading dimensions are one placeholder.
        return y.reshape(like.shape[:-1] + features)

    def arguments(self) -> dict[str, object]:
        """The arguments of `of` that give these windows, without the padding."""
        return {"kernel_size": self.kernel, "size": self.size, "stride": self.stride}


def _pair(value: Any, argument: str, *, least: int) -> Pair:
    number = as_whole_number(value)
    # A tensor's size, a list and numpy's array of two numbers are pairs too.
    values = list(value) if number is None and hasattr(value, "__iter__") else [number, number]
    match [as_whole_number(each) for each in values]:
        case [int(height), int(width)] if min(height, width) >= least:
            return height, width
    raise ArgumentError(
        argument,
        f"must be one or two whole numbers of at least {least}",
        repr(value),
        "Pass one number for both directions, or (height, width).",
    )
