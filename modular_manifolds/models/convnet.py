"""A convolutional network for small images."""

from __future__ import annotations

from modular_manifolds.arguments import check_count
from modular_manifolds.nn import Conv2d, Flatten, Linear, MeanPool, Module, ReLU, Series


def ConvNet(
    in_channels: int,
    classes: int,
    *,
    size: tuple[int, int] = (32, 32),
    width: int = 32,
    depth: int = 2,
    logit_scale: float = 8.0,
    masses: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Module:
    """A convolution, `depth` stages that halve the image and double the channels, and a linear head.

    Images as vectors `(*batch, in_channels · height · width)` to `(*batch, classes)`, from l2 to l2. Every part has
    sensitivity 1: weights are on Stiefel, and the mean over 2 × 2 pixels is multiplied by 2. Outputs are scaled by
    `logit_scale`, the sensitivity of the network.

    Args:
        in_channels: the numbers of input channels and of outputs.
        classes: as `in_channels`.
        size: the image's (height, width); each stage halves it, rounding down.
        width: the number of channels after the first convolution.
        depth: the number of stages.
        logit_scale: the sensitivity; the learning rate is that of the scaled outputs.
        masses: the masses of the first convolution, of all stages together, and of the head.

    Raises:
        ArgumentError: a number is out of range, or the image is too small for so many stages.
    """
    depth = check_count(depth, argument="ConvNet(depth)", what="stages")
    width = check_count(width, argument="ConvNet(width)", what="channels")
    first, middle, last = masses
    stem = Conv2d(in_channels, width, 3, size=size, padding=1, mass=first)
    body: list[Module] = []
    size = stem.output_size
    for _ in range(depth):
        conv = Conv2d(width, 2 * width, 3, size=size, padding=1, mass=middle / depth)
        width *= 2
        pool = MeanPool(width, 2, size=size)
        body.append(conv >> ReLU() >> 2.0 * pool)
        size = pool.output_size
    head = Linear(width * size[0] * size[1], classes, mass=last)
    return Series(stem=stem >> ReLU(), body=Series(*body), head=logit_scale * (Flatten() >> head))
