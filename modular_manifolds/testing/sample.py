"""The samples that a law is tried on: shapes and random numbers that are the same at every run."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

SIZES: Final = (2.0**-100, 2.0**-40, 2.0**40, 2.0**100)
"""Factors from 8e-31 to 1e30 that multiply without rounding, in float32 too."""


@dataclass(frozen=True)
class Sample:
    """One draw: the shape, the precision, the seed, and how far results may be off.

    Args:
        shape: (*batch, m, n), or (n,) for a vector.
        dtype: float64 is the oracle; float32 has its own, larger rounding.
        seed: another seed is another draw.
        accuracy: the relative error allowed on top of rounding, for what is approximate by design
            (`msign` at its default: 1e-3).
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
        """A generator of its own for each name, so that a new draw does not change the others."""
        seed = zlib.crc32(f"{name} {self.seed}".encode())
        return torch.Generator(device=self.device).manual_seed(seed)

    def normal(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """Standard normal entries, of the sample's shape if no other is given."""
        size = self.shape if shape is None else shape
        generator = self.generator(name)
        return torch.randn(size, generator=generator, dtype=self.dtype, device=self.device)
