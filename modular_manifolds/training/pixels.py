"""All pictures of a data set as one tensor: one size, one number of channels."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from modular_manifolds.errors import DataError
from modular_manifolds.specs.data import OwnImagesSpec
from modular_manifolds.specs.memory import check_memory
from modular_manifolds.training.pictures import Header, Picture, read_header, read_pixels

BYTES_A_NUMBER: Final = 16
"""Bytes of memory for each number of the images: decode_pictures, normalised, and once more for each of the two parts."""


def decode_pictures(pictures: list[Picture], spec: OwnImagesSpec) -> Tensor:
    """The pixels of all pictures in [0, 1], float32 of shape (count, channels, height, width).

    Raises:
        DataError: a picture cannot be read, sizes differ and none is asked for, or memory does not hold them.
    """
    headers = [read_header(each) for each in pictures]
    channels = spec.channels or (1 if all(each.grey for each in headers) else 3)
    height, width = _size(pictures, headers) if spec.size is None else (spec.size, spec.size)
    check_memory(
        BYTES_A_NUMBER * len(pictures) * channels * height * width,
        argument="the images",
        seen=f"{len(pictures):,} images of {height}×{width} pixels",
        remedy="Use fewer, or a smaller data.size.",
        error=DataError,
    )
    images = torch.empty(len(pictures), channels, height, width, dtype=torch.float32)
    for image, picture in zip(images, pictures, strict=True):
        pixels = torch.from_numpy(read_pixels(picture, channels, spec.background).copy())
        image.copy_(pixels if spec.size is None else _resize(pixels, spec.size))
    return images


def _size(pictures: list[Picture], headers: list[Header]) -> tuple[int, int]:
    first = headers[0]
    for picture, header in zip(pictures, headers, strict=True):
        if (header.height, header.width) != (first.height, first.width):
            raise DataError(
                "the images",
                "must all have one size",
                f"{pictures[0].name} of {first.height}×{first.width} pixels and "
                f"{picture.name} of {header.height}×{header.width}",
                "Say the size that they are resized to: data.size=32.",
            )
    return first.height, first.width


def _resize(pixels: Tensor, side: int) -> Tensor:
    """The middle of the image whose shorter side is `side`, smoothed before it is made smaller."""
    height, width = pixels.shape[1:]
    factor = side / min(height, width)
    size = [max(side, math.floor(factor * each + 0.5)) for each in (height, width)]
    whole = functional.interpolate(
        pixels[None], size=size, mode="bilinear", antialias=True, align_corners=False
    )[0]
    top, left = ((each - side) // 2 for each in size)
    return whole[:, top : top + side, left : left + side].clamp(0, 1)
