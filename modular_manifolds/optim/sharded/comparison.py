"""The cost of a matrix that is stepped by rows, and by an owner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MULTIPLICATIONS_PER_BYTE: Final = 100.0
"""How many multiplications take as long as one byte that a process sends. It holds for processors with a network of 10 Gbit/s
and for accelerators with NVLink, to a factor of four."""


@dataclass(frozen=True)
class Estimate:
    """The cost of one matrix for the process that does most.

    Args:
        sent: bytes.
        multiplications: as `sent`.
    """

    sent: float
    multiplications: float

    @property
    def total(self) -> float:
        """The time, in multiplications."""
        return self.sent * MULTIPLICATIONS_PER_BYTE + self.multiplications

    def __str__(self) -> str:
        return f"{self.sent / 1e6:.3g} MB and {self.multiplications:.2g} multiplications"


@dataclass(frozen=True)
class Comparison:
    """Both ways of one matrix.

    With p processes, an owner receives gradient and point and sends the point back: `3 m n (p − 1)/p` numbers. A ring
    all-reduce sends and receives each number of a sum `2 (p − 1)/p` times: three sums of n×n are `20 n² (p − 1)/p` bytes
    in float32. Owners work at the same time, so an owner's work counts by its share of all: at least 1/p.

    Args:
        rows: the cost by rows.
        owner: the cost by an owner, times its share.
    """

    rows: Estimate
    owner: Estimate

    @property
    def prefers_rows(self) -> bool:
        """Whether rows cost less."""
        return self.rows.total < self.owner.total

    def __str__(self) -> str:
        return f"by rows {self.rows}, by an owner {self.owner}"
