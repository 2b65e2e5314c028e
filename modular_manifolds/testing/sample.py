"""The samples on which laws are tested: shapes and reproducible random numbers."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

SIZES: Final = (2.0**-100, 2.0**-40, 2.0**40, 2.0**100)
"""Powers of two from 8e-31 to 1e30, which multiply without rounding, also in float32."""


@dataclass(frozen=True)
class Sample:
    """A random sample: its shape, precision and seed, and the allowed error of results.

    Args:
        shape: (*batch, m, n), or (n,) for a vector.
        dtype: float64 or float32, whose rounding is larger.
        seed: the seed of the random numbers.
        accuracy: the relative error allowed in addition to rounding, for results that are approximate by design
            (`msign` with its default: 1e-3).
        device: the device of the tensors.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float64
    seed: int = 0
    accuracy: float = 0.0
    device: torch.device | str = "cpu"

    @property
    def eps(self) -> float:
        """The distance from 1 to the next number of the dtype."""
        return torch.finfo(self.dtype).eps

    @property
    def rounding(self) -> float:
        """`32 √(m + n) ε`: relative error of a few products and one decomposition of m×n matrices."""
        return 32 * math.sqrt(sum(self.matrix_shape)) * self.eps

    @property
    def tolerance(self) -> float:
        """`accuracy + rounding`."""
        return self.accuracy + self.rounding

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(m, n) of one matrix; a vector of length n counts as (n, 1)."""
        *_, m, n = self.shape if len(self.shape) > 1 else (*self.shape, 1)
        return m, n

    def generator(self, name: str) -> torch.Generator:
        """A separate generator for each name, so that a new draw does not change the others."""
        seed = zlib.crc32(f"{name} {self.seed}".encode())
        return torch.Generator(device=self.device).manual_seed(seed)

    def normal(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """Standard normal entries of `shape`, by default the sample's shape."""
        size = self.shape if shape is None else shape
        generator = self.generator(name)
        return torch.randn(size, generator=generator, dtype=self.dtype, device=self.device)
