"""Windows that slide over an image: how many there are, and in how many of them an entry lies."""

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

    An image of C channels is a vector of C · height · width features, channel by channel, row by row: what
    `flatten` makes of (C, height, width).

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
        """The windows that the arguments of the module `kind` name; one number stands for two."""
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
        high, wide = (
            (size + 2 * padding - kernel) // stride + 1
            for size, kernel, stride, padding in zip(
                self.size, self.kernel, self.stride, self.padding, strict=True
            )
        )
        return high, wide

    @property
    def overlap(self) -> int:
        """In how many windows an entry lies at most: `min(⌈kernel/stride⌉, outputs)`, both directions multiplied.

        The windows over one position begin in an interval of `kernel` positions, in which there are at
        most ⌈kernel/stride⌉ multiples of `stride`.
        """
        high, wide = (
            min(-(-kernel // stride), outputs)
            for kernel, stride, outputs in zip(self.kernel, self.stride, self.outputs, strict=True)
        )
        return high * wide

    @property
    def entries(self) -> int:
        """How many entries of one channel a window holds."""
        return self.kernel[0] * self.kernel[1]

    def images(self, x: Tensor, channels: int, *, argument: str) -> Tensor:
        """Vectors as a batch of images: (*batch, C · height · width) to (batch, C, height, width)."""
        features = channels * self.size[0] * self.size[1]
        if has_sizes(x) and x.shape[-1] != features:
            raise ShapeError(
                argument,
                f"must have {features} features, {channels} channels of {self.size[0]} × {self.size[1]}",
                tuple(x.shape),
                "Put mm.Flatten() in front of it: images travel between modules as vectors.",
            )
        return x.reshape(-1, channels, *self.size)

    def vectors(self, y: Tensor, *, like: Tensor) -> Tensor:
        """A batch of images as vectors, with the leading dimensions of `like`."""
        features = (y.shape[1] * math.prod(self.outputs),)
        # Not unpacked: to `torch.fx` the leading dimensions are one stand-in.
        return y.reshape(like.shape[:-1] + features)

    def arguments(self) -> dict[str, object]:
        """The arguments of `of` that say the same, without the padding."""
        return {"kernel_size": self.kernel, "size": self.size, "stride": self.stride}


def _pair(value: Any, argument: str, *, least: int) -> Pair:
    one = as_whole_number(value)
    # A tensor's size, a list and numpy's array of two numbers are pairs too.
    given = list(value) if one is None and hasattr(value, "__iter__") else [one, one]
    match [as_whole_number(each) for each in given]:
        case [int(high), int(wide)] if min(high, wide) >= least:
            return high, wide
    raise ArgumentError(
        argument,
        f"must be one or two whole numbers of at least {least}",
        repr(value),
        "Pass one number for both directions, or (height, width).",
    )
