"""Machines: the stated inputs of the computation, and the formulas of the collectives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

Precision = Literal["bfloat16", "float32"]


@dataclass(frozen=True)
class Seconds:
    """The seconds of a step in four terms, which add up to the total: nothing overlaps.

    Args:
        flops: products of matrices that are limited by multiplications.
        memory: products that are limited by the device's memory, and passes over numbers.
        wire: bytes between ranks.
        latency: launches, calls and hops.
    """

    flops: float = 0.0
    memory: float = 0.0
    wire: float = 0.0
    latency: float = 0.0

    @property
    def total(self) -> float:
        """The sum of the four terms."""
        return self.flops + self.memory + self.wire + self.latency

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(
            self.flops + other.flops,
            self.memory + other.memory,
            self.wire + other.wire,
            self.latency + other.latency,
        )

    def times(self, count: float) -> Seconds:
        """The same work so many times."""
        return Seconds(
            count * self.flops, count * self.memory, count * self.wire, count * self.latency
        )


@dataclass(frozen=True)
class Machine:
    """Devices, nodes and links. Rates are a second; a link's is that of one rank in one direction.

    Args:
        name: the name of the device.
        bfloat16: floating-point operations in bfloat16, from the vendor's data sheet.
        float32: the same in float32, without tensor cores.
        memory_rate: bytes of the device's memory.
        memory_bytes: the size of the device's memory.
        inside: bytes between two ranks of one node.
        between: bytes of one rank's own link to other nodes.
        achieved: the fraction of the peaks that is computed with.
        launch: seconds of one launch.
        ranks_per_node: devices in one node.
        call: seconds of one collective, whatever it sends.
        hop_inside: seconds from one rank of a node to the next.
        hop_between: seconds from one node to the next.
    """

    name: str
    bfloat16: float
    float32: float
    memory_rate: float
    memory_bytes: float
    inside: float
    between: float
    achieved: float = 0.5
    launch: float = 4e-6
    ranks_per_node: int = 8
    call: float = 10e-6
    hop_inside: float = 2e-6
    hop_between: float = 8e-6

    def rate(self, precision: Precision) -> float:
        """Floating-point operations a second that are computed with."""
        return self.achieved * (self.bfloat16 if precision == "bfloat16" else self.float32)

    def passes(self, size: float) -> Seconds:
        """The seconds to read or write so many bytes of the device's memory."""
        return Seconds(memory=size / self.memory_rate)

    def launches(self, count: float) -> Seconds:
        """The seconds of so many launches."""
        return Seconds(latency=count * self.launch)

    def nodes(self, ranks: int) -> int:
        """The number of nodes of so many ranks."""
        return math.ceil(ranks / self.ranks_per_node)

    def bus(self, ranks: int) -> float:
        """Bytes a second that a ring passes on: a node's rings use the links of all its ranks."""
        if self.nodes(ranks) == 1:
            return self.inside
        return min(self.inside, self.ranks_per_node * self.between)

    def all_gather(self, size: float, ranks: int) -> Seconds:
        """A ring: `(p − 1) S / bus`, and p − 1 hops, if every rank contributes S bytes."""
        if ranks == 1:
            return Seconds()
        return Seconds(
            wire=(ranks - 1) * size / self.bus(ranks), latency=self.call + self._ring(ranks)
        )

    def all_reduce(self, size: float, ranks: int) -> Seconds:
        """The quicker of a ring, `2 (p − 1)/p · S / bus` with 2 (p − 1) hops, and a tree.

        A tree takes `2 S / bus`, twice the hops in a node, and `2 log₂(nodes)` hops between nodes.
        """
        if ranks == 1:
            return Seconds()
        bus, nodes = self.bus(ranks), self.nodes(ranks)
        ring = Seconds(
            wire=2 * (ranks - 1) / ranks * size / bus, latency=self.call + 2 * self._ring(ranks)
        )
        chain = min(ranks, self.ranks_per_node) - 1
        hops = chain * self.hop_inside + math.ceil(math.log2(nodes)) * self.hop_between
        tree = Seconds(wire=2 * size / bus, latency=self.call + 2 * hops)
        return min(ring, tree, key=lambda each: each.total)

    def all_to_all(self, size: float, ranks: int) -> Seconds:
        """p − 1 messages; `size` is the sum of what the busiest rank sends or receives, its own share included.

        Bytes to other nodes pass the rank's own link, at the same time as those inside the node.
        """
        if ranks == 1:
            return Seconds()
        near = min(ranks, self.ranks_per_node) - 1
        far = ranks - 1 - near
        wire = size / ranks * max(near / self.inside, far / self.between)
        return Seconds(wire=wire, latency=self.call + self._ring(ranks))

    def _ring(self, ranks: int) -> float:
        """The latency of one round along a ring through all ranks, as NCCL counts it."""
        nodes = self.nodes(ranks)
        return (ranks - nodes) * self.hop_inside + (nodes - 1) * self.hop_between


MACHINES: Final = {
    "h100": Machine(
        "H100 SXM",
        bfloat16=989e12,
        float32=67e12,
        memory_rate=3.35e12,
        memory_bytes=80e9,
        inside=450e9,
        between=50e9,
    ),
    "a100": Machine(
        "A100 SXM 80 GB",
        bfloat16=312e12,
        float32=19.5e12,
        memory_rate=2.04e12,
        memory_bytes=80e9,
        inside=300e9,
        between=25e9,
    ),
}
"""Peaks, memory and NVLink from NVIDIA's data sheets, without sparsity. A link of 400 or 200 Gbit/s a rank between nodes."""
