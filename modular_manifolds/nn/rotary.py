"""Rotary position encoding: pairs of features are rotated by angles proportional to the position."""

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
    """Rotate the pair (x_i, x_{i+d/2}) at position p by the angle `p · base^{−2i/d}`; shape (…, positions, d).

    The inner product of a rotated query and a rotated key depends on their positions only through the distance. A
    rotation is an isometry of l2 and rms: the sensitivity is 1, and norms do not change. In l1 and linf a rotation by
    45° has norm √2, so only rms is accepted.

    Args:
        head_features: d, even.
        base: the larger, the slower the rotation of the last pairs.

    Raises:
        ArgumentError: `head_features` is not even and positive, or `base` is not finite and above 1.

    Source: Su et al., "RoFormer" (2021), section 3.2.
    """

    def __init__(self, head_features: int, *, base: float = 10000.0) -> None:
        head_features = check_count(head_features, argument="Rotary(head_features)")
        if head_features % 2:
            raise ArgumentError(
                "Rotary(head_features)",
                "must be even, because features are rotated in pairs",
                head_features,
                "Choose another size of head.",
            )
        space = Space(head_features, "rms")
        super().__init__(source=space, target=space, leading=(POSITIONS,))
        self.head_features = head_features
        remedy = "Leave it at 10000."
        self.base: float = check_number(base, BASES, argument="Rotary(base)", remedy=remedy)
        # Not buffers: a cast of the network would round them twice, and rotations would no longer preserve norms.
        self._tables: tuple[Tensor, Tensor] | None = None

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        # An entry is at most |x_i||cos| + |x_j||sin|, with one rounding each of table, product and sum: an error of
        # 2 eps (|x_i| + |x_j|), and √2 times that for both entries. |x_i| + |x_j| is at most √2 times the pair's norm.
        return 4.0 * torch.finfo(dtype).eps * radius

    def forward(self, x: Tensor) -> Tensor:
        cosines, sines = self._turns(x)
        first, second = x.chunk(2, dim=-1)
        return torch.cat(
            (first * cosines - second * sines, first * sines + second * cosines), dim=-1
        )

    def _turns(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of shape (positions, d/2), recomputed if the tables are too short or of another dtype."""
        positions, tables = x.shape[-2], self._tables
        if is_traced(x):
            # A traced program serves any number of positions and stores no tables.
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
