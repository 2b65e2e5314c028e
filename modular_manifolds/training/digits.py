"""The bundled digits: 1,797 real images of 8×8 pixels.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository (1998), https://doi.org/10.24432/C50P49, CC BY 4.0; the test part of that set.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from modular_manifolds.certificates import InputScale
from modular_manifolds.errors import DataError
from modular_manifolds.training.split import Split

EVERY = 5
"""Every fifth image is a test image: 359 of 1,797."""

FEATURES = 64
"""The number of pixels of an image."""


def digits_scale() -> InputScale:
    """The exact scaling of a pixel from 0 to 16: `u = pixel/16` in [0, 1], and the input is `(u − 1/2)/(1/4)`."""
    mean, std = torch.full((FEATURES,), 0.5), torch.full((FEATURES,), 0.25)
    return InputScale(mean, std, "pixels in [0, 1]", slack=0.0)


def load_digits(folder: Path | None) -> tuple[Split, Split, tuple[str, ...]]:
    """Load the digits; pixels from 0 to 16 become `(pixel − 8)/4`, from −2 to 2, and an image has a length of about 13.

    Inputs need this size, because the outputs of a network with weights of norm 1 are not longer than its inputs.
    """
    if folder is not None:
        raise DataError(
            "data path", "must be left out for the bundled digits", str(folder), "Leave it out."
        )
    bundled = files("modular_manifolds.training") / "assets" / "digits.npz"
    with bundled.open("rb") as file, np.load(file, allow_pickle=False) as data:
        # The file holds one pixel of all images after the other, which makes it smaller.
        pixels, names = np.ascontiguousarray(data["images"]), data["labels"]
    images = torch.from_numpy(pixels.reshape(len(pixels), -1).astype(np.float32))
    labels = torch.from_numpy(names.astype(np.int64))
    images = (images - 8.0) / 4.0
    test = torch.arange(len(labels)) % EVERY == EVERY - 1
    classes = tuple(str(digit) for digit in range(10))
    return Split(images[~test], labels[~test]), Split(images[test], labels[test]), classes
