"""Image files as numbers: what is read, what is converted, and what is refused.

Pixels become numbers in [0, 1]. A photograph is turned as its EXIF orientation says. A palette becomes its colours, and
16-bit grey keeps its 65,536 levels. An opaque alpha channel is dropped; transparent pixels need a background. Nothing is
guessed: other kinds of images, moving ones and damaged files are refused, and the message names the file.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from modular_manifolds.errors import DataError
from modular_manifolds.training.extras import library

GREY: Final = frozenset({"1", "L", "LA"})
DEEP: Final = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
COLOUR: Final = frozenset({"RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr"})
"""Pillow's names for the kinds of images: 8-bit grey, 16-bit grey, and colour."""
LEVELS: Final = 65_535
"""The largest value of a 16-bit pixel."""
SIDEWAYS: Final = frozenset({5, 6, 7, 8})
"""The EXIF orientations that swap height and width."""
ORIENTATION: Final = 0x0112
"""The number of the EXIF tag that says how the camera was held."""


@dataclass(frozen=True)
class Picture:
    """An image file, or one in a row of a table, that has not been decoded yet."""

    name: str
    source: Path | bytes


@dataclass(frozen=True)
class Header:
    """The size and the kind of a picture."""

    height: int
    width: int
    grey: bool


def read_header(picture: Picture) -> Header:
    """Check a picture's kind and checksums.

    Raises:
        DataError: it is no image, damaged, or of a kind that is not read.
    """
    with _open_image(picture) as image:
        # Compares the checksums of a PNG, which decoding does not; nothing can be read from the image afterwards.
        image.verify()
    with _open_image(picture) as image:
        frames = getattr(image, "n_frames", 1)
        if frames != 1:
            raise DataError(
                picture.name,
                "must be a single image",
                f"{frames} frames",
                "Save the frames as images of their own.",
            )
        if image.mode not in GREY | COLOUR and not _is_deep(image):
            raise DataError(
                picture.name,
                "must be grey or colour with 8 bits a channel, or grey with 16 bits",
                f"an image of mode {image.mode}",
                "Save it as PNG or JPEG.",
            )
        width, height = image.size
        if image.getexif().get(ORIENTATION) in SIDEWAYS:
            width, height = height, width
        grey = image.mode in GREY or _is_deep(image)
    return Header(height, width, grey)


def read_pixels(picture: Picture, channels: int, background: str | None) -> np.ndarray:
    """The pixels in [0, 1], float32 of shape (channels, height, width).

    Raises:
        DataError: the picture is damaged, or has transparent pixels and there is no background.
    """
    operations = library("PIL.ImageOps", extra="datasets", purpose="data images")
    with _open_image(picture) as image:
        is_deep = _is_deep(image)
        upright = operations.exif_transpose(image)
        if is_deep:
            values = np.asarray(upright).astype(np.float32) / LEVELS
            return np.repeat(values[None], channels, axis=0)
        if upright.has_transparency_data:
            upright = _fill_transparent(upright, picture.name, background)
        values = np.asarray(upright.convert("L" if channels == 1 else "RGB"), dtype=np.float32)
    values = values / 255
    return values[None] if channels == 1 else values.transpose(2, 0, 1)


def _is_deep(image: Any) -> bool:
    # Versions of Pillow before 11 open a PNG with 16 bits of grey as one with 32.
    return image.mode in DEEP or (image.mode == "I" and image.format == "PNG")


def _fill_transparent(image: Any, name: str, background: str | None) -> Any:
    layered = image.convert("RGBA")
    lowest, _ = layered.getchannel("A").getextrema()
    if lowest < 255 and background is None:
        raise DataError(
            name,
            "must have no transparent pixels",
            "some",
            "Say what is behind them: data.background=white, or black.",
        )
    pillow = library("PIL.Image", extra="datasets", purpose="data images")
    behind = pillow.new("RGBA", layered.size, background or "black")
    return pillow.alpha_composite(behind, layered).convert("RGB")


@contextmanager
def _open_image(picture: Picture) -> Iterator[Any]:
    pillow = library("PIL.Image", extra="datasets", purpose="data images")
    source = picture.source
    if not (source if isinstance(source, bytes) else source.stat().st_size):
        raise DataError(picture.name, "must be an image", "an empty file", REMEDY)
    try:
        with warnings.catch_warnings():
            # Pillow warns of images that are so large that they may be an attack, and of odd EXIF data.
            warnings.simplefilter("ignore")
            with pillow.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                yield image
    except DataError:
        raise
    # A damaged file makes Pillow raise errors of many kinds.
    except Exception as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(picture.name, "must be an image that can be read", reason, REMEDY) from None


REMEDY: Final = "Replace the file, or take it away."
