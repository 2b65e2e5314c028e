"""What one launch does, as counted: operations of matrix products, and bytes that must cross the memory bus."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from modular_manifolds_kernels.static.targets import Target


@dataclass(frozen=True)
class Launch:
    """One launch.

    `flops` counts a multiplication and an addition in a matrix product as two, and what a tile adds past
    the edge too. `read` and `written` are bytes with cold caches and perfect reuse: every operand is
    read once, every result written once. Real traffic can only be more.
    """

    name: str
    flops: int
    read: int
    written: int
    blocks: int = 0
    """How many blocks it has; 0 where that is not ours to know."""

    @property
    def bytes(self) -> int:
        """Read and written."""
        return self.read + self.written

    def times(self, batch: int) -> Launch:
        """The same launch for a batch of matrices."""
        return replace(
            self,
            flops=self.flops * batch,
            read=self.read * batch,
            written=self.written * batch,
            blocks=self.blocks * batch,
        )


@dataclass(frozen=True)
class Total:
    """Sums over launches."""

    launches: int
    flops: int
    bytes: int


def total(launches: Iterable[Launch]) -> Total:
    """How many launches, operations and bytes together."""
    held = list(launches)
    return Total(len(held), sum(each.flops for each in held), sum(each.bytes for each in held))


def least_seconds(launches: Iterable[Launch], target: Target, *, precision: str) -> float:
    """A lower bound on the time of launches that wait for one another, from a data sheet's rates.

    `Σ max(flops/peak, bytes/bandwidth)`. No launch overhead, no latency, no clock below the sheet's: a
    real run takes longer, by how much is not known without a measurement.

    Args:
        precision: of the operands of matrix products: a key of `target.flops`.
    """
    peak = target.flops[precision]
    return sum(max(each.flops / peak, each.bytes / target.bandwidth) for each in launches)
