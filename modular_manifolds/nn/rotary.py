"""Rotary positions: what a vector says of its place is the angle by which its pairs are turned."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modular_manifolds.arguments import Range, check_count, check_number
from modular_manifolds.composition.space import Space
from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.heads import POSITIONS
from modular_manifolds.nn.leaf import Bond
from modular_manifolds.nn.tracing import is_traced

BASES = Range("must be finite and above 1", lambda base: 1 < base < math.inf)


class Rotary(Bond):
    """Pair (x_i, x_{i+d/2}) at position p is turned by the angle `p · base^{−2i/d}`; shape (…, positions, d).

    An inner product of a turned query and a turned key depends on their places through their distance
    alone. Every position is turned by an isometry of l2 and rms: sensitivity 1, and no size changes. In l1
    and linf a turn by 45° has norm √2, so rms is the only space it takes.

    Args:
        head_features: d, even.
        base: how slow the slowest pairs turn.

    Raises:
        ArgumentError: `head_features` is not even and positive, or `base` is not finite and above 1.

    Source: Su et al., "RoFormer" (2021), section 3.2.
    """

    def __init__(self, head_features: int, *, base: float = 10000.0) -> None:
        head_features = check_count(head_features, argument="Rotary(head_features)")
        if head_features % 2:
            raise ArgumentError(
                "Rotary(head_features)",
                "must be even, because features are turned in pairs",
                head_features,
                "Choose another size of head.",
            )
        space = Space(head_features, "rms")
        super().__init__(source=space, target=space, leading=(POSITIONS,))
        self.head_features = head_features
        remedy = "Leave it at 10000."
        self.base: float = check_number(base, BASES, argument="Rotary(base)", remedy=remedy)
        # Not buffers: a cast of the network would round them twice, and a turn would no longer keep lengths.
        self._tables: tuple[Tensor, Tensor] | None = None

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        # An entry is |x_i||cos| + |x_j||sin| at most, with a rounding each of table, product and sum: 2 eps
        # of |x_i| + |x_j|, for both entries √2 times that, and |x_i| + |x_j| is √2 of the pair's length.
        return 4.0 * torch.finfo(dtype).eps * radius

    def forward(self, x: Tensor) -> Tensor:
        cosines, sines = self._turns(x)
        first, second = x.chunk(2, dim=-1)
        return torch.cat(
            (first * cosines - second * sines, first * sines + second * cosines), dim=-1
        )

    def _turns(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of shape (positions, d/2), computed anew if none are long enough or of x's kind."""
        positions, tables = x.shape[-2], self._tables
        if is_traced(x):
            # A traced program is one for any number of positions, and what it computes is kept nowhere.
            return self._computed(positions, x)
        if (
            tables is None
            or tables[0].shape[0] < positions
            or tables[0].dtype != x.dtype
            or tables[0].device != x.device
        ):
            tables = self._tables = self._computed(positions, x)
        return tables[0][:positions], tables[1][:positions]

    def _computed(self, positions: int, x: Tensor) -> tuple[Tensor, Tensor]:
        pairs = torch.arange(0, self.head_features, 2, dtype=torch.float64, device="cpu")
        places = torch.arange(positions, dtype=torch.float64, device="cpu")
        angles = torch.outer(places, self.base ** (-pairs / self.head_features))
        return angles.cos().to(x.device, x.dtype), angles.sin().to(x.device, x.dtype)
