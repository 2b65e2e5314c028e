"""Image files as numbers: every kind of file is read as it looks, or refused in words."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from modular_manifolds.errors import DataError
from modular_manifolds.training.pictures import Picture, read_header, read_pixels

Image = pytest.importorskip("PIL.Image", reason="the extra 'datasets' is not installed")

GREY = np.arange(0, 120, 10, dtype=np.uint8).reshape(3, 4)
COLOUR = np.stack((GREY, GREY + 50, GREY + 100), axis=-1)


def encoded(image: Any, kind: str = "PNG", **options: Any) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return Picture("picture", buffer.getvalue())


def test_grey_and_colour() -> None:
    grey, colour = encoded(Image.fromarray(GREY)), encoded(Image.fromarray(COLOUR))
    assert (read_header(grey).grey, read_header(colour).grey) == (True, False)
    assert (read_header(grey).height, read_header(grey).width) == (3, 4)
    np.testing.assert_allclose(read_pixels(grey, 1, None), GREY[None] / 255, atol=1e-7)
    np.testing.assert_allclose(read_pixels(grey, 3, None), np.stack([GREY / 255] * 3), atol=1e-7)
    wanted = COLOUR.transpose(2, 0, 1) / 255
    np.testing.assert_allclose(read_pixels(colour, 3, None), wanted, atol=1e-7)
    # Pillow's weights of red, green and blue, in whole levels.
    light = COLOUR @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(255 * read_pixels(colour, 1, None)[0], light, atol=1)


def test_a_palette_becomes_its_colours() -> None:
    palette = Image.fromarray(COLOUR).quantize(16)
    picture = encoded(palette)
    assert not read_header(picture).grey
    wanted = np.asarray(palette.convert("RGB")).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(read_pixels(picture, 3, None), wanted, atol=1e-7)


def test_sixteen_bits_keep_their_levels() -> None:
    deep = (GREY.astype(np.uint16) * 257) + 1
    picture = encoded(Image.fromarray(deep))
    assert read_header(picture).grey
    np.testing.assert_allclose(read_pixels(picture, 1, None)[0], deep / 65535, atol=1e-7)
    assert read_pixels(picture, 3, None).shape == (3, 3, 4)


def test_transparent_pixels_need_a_background() -> None:
    alpha = np.full_like(GREY, 255)
    opaque = encoded(Image.fromarray(np.dstack((COLOUR, alpha))))
    wanted = COLOUR.transpose(2, 0, 1) / 255
    np.testing.assert_allclose(read_pixels(opaque, 3, None), wanted, atol=1e-7)
    alpha[0, 0] = 0
    picture = encoded(Image.fromarray(np.dstack((COLOUR, alpha))))
    with pytest.raises(DataError, match="picture must have no transparent pixels, got some"):
        read_pixels(picture, 3, None)
    for background, value in (("white", 1.0), ("black", 0.0)):
        found = read_pixels(picture, 3, background)
        assert found[:, 0, 0].tolist() == [value] * 3
        np.testing.assert_allclose(found[:, 1:], wanted[:, 1:], atol=1e-7)


def test_a_colour_that_stands_for_transparent_counts_as_such() -> None:
    picture = encoded(Image.fromarray(GREY), transparency=10)
    with pytest.raises(DataError, match="must have no transparent pixels"):
        read_pixels(picture, 1, None)
    assert read_pixels(picture, 1, "white")[0, 0, 1] == 1.0


@pytest.mark.parametrize("deep", [False, True])
def test_a_photograph_is_turned_as_it_says(deep: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = GREY.astype(np.uint16) if deep else GREY
    picture = encoded(Image.fromarray(pixels), exif=exif)
    header = read_header(picture)
    assert (header.height, header.width) == (4, 3)
    found = read_pixels(picture, 1, None)[0]
    np.testing.assert_allclose(found, np.rot90(GREY, -1) / (65535 if deep else 255), atol=1e-7)


def test_other_kinds_are_refused() -> None:
    real = encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF")
    with pytest.raises(DataError, match=r"must be grey or colour with 8 bits .* mode F"):
        read_header(real)
    frames = [Image.fromarray(GREY), Image.fromarray(GREY + 1)]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="must be a single image, got 2 frames"):
        read_header(moving)
    with pytest.raises(DataError, match="must be an image, got an empty file"):
        read_header(Picture("picture", b""))
