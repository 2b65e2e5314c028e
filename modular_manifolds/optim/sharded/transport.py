"""Transport: shards travel to the owners of their parameters, and back, each way in a packed all-to-all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from modular_manifolds.nn.boxes import cut, size_of
from modular_manifolds.optim import foreach
from modular_manifolds.optim.collectives import GATHERING, together
from modular_manifolds.optim.sharded.crew import Crew
from modular_manifolds.optim.sharded.layout import Layout


@dataclass(frozen=True)
class Field:
    """A tensor that travels: the gradient, the point or a state entry of one parameter.

    Args:
        key: the parameter's name and the entry's.
        layout: the boxes of the tensor.
        owner: the rank of the parameter's owner.
    """

    key: tuple[str, str]
    layout: Layout
    owner: int

    @property
    def is_owned(self) -> bool:
        """Whether this process is the owner."""
        return self.owner == self.layout.crew.rank


@dataclass(frozen=True, eq=False)
class Sent:
    """A message on its way.

    Args:
        outgoing: the numbers that this process sends.
        incoming: the memory of the numbers that it receives.
        work: the handle of the collective; None if it has ended.
    """

    outgoing: Tensor
    incoming: Tensor
    work: Any

    def wait(self) -> Tensor:
        """The numbers that have come. On a device the present stream waits, and not the host."""
        if self.work is not None:
            together(GATHERING, self.work.wait)
            if not self.incoming.is_cpu:
                # Their memory belongs to the stream of the backward pass.
                stream = torch.accelerator.current_stream(self.incoming.device)
                self.incoming.record_stream(stream)
                self.outgoing.record_stream(stream)
        return self.incoming

    def numbers(self) -> Tensor:
        """The numbers that this process has sent. On a device the present stream waits for them."""
        if not self.outgoing.is_cpu:
            self.wait()
        return self.outgoing


class Transport:
    """Fields of one crew and dtype. The sizes of all messages follow from layouts and owners, never from data.

    Args:
        crew: the processes.
        dtype: the dtype of the numbers.
        device: the device of the numbers.
        fields: the fields, in an order that is the same on every process.
    """

    def __init__(
        self, crew: Crew, dtype: torch.dtype, device: torch.device, fields: Sequence[Field]
    ) -> None:
        self._crew, self._dtype, self._device = crew, dtype, device
        self.fields = tuple(fields)
        ranks = range(crew.processes)
        self._sources = {each.key: set(each.layout.sources(each.owner)) for each in fields}
        self._owned = [each for each in fields if each.is_owned]
        self._sent_by = [
            [each for each in self._owned if rank in self._sources[each.key]] for rank in ranks
        ]
        """For each rank, the fields that it sends to this process."""
        self._sent_to = [
            [each for each in fields if each.owner == owner and self._is_source(each)]
            for owner in ranks
        ]
        """For each owner, the fields of which this process is a source."""

    def _is_source(self, field: Field) -> bool:
        return self._crew.rank in self._sources[field.key]

    def pack(self, shards: Mapping[tuple[str, str], Tensor]) -> Tensor:
        """The numbers that this process sends to owners, one after another.

        Args:
            shards: the shard of every field.
        """
        sent = [[shards[each.key] for each in fields] for fields in self._sent_to]
        return self._packed(sent)

    def pack_zeros(self) -> Tensor:
        """A message of the same size without a value."""
        return torch.zeros(sum(self._sizes_to_owners()), dtype=self._dtype, device=self._device)

    def send(self, outgoing: Tensor, group: Any = None) -> Sent:
        """Send packed shards to the owners.

        Args:
            outgoing: the result of `pack`. It must keep its values until the message is received.
            group: a process group of the crew in which the message travels while this process goes on; by default
                the call returns with the message.
        """
        received_sizes = [
            sum(size_of(each.layout.boxes[rank]) for each in fields)
            for rank, fields in enumerate(self._sent_by)
        ]
        return self._send(outgoing, self._sizes_to_owners(), received_sizes, group)

    def receive(self, sent: Sent, wholes: Mapping[tuple[str, str], Tensor]) -> None:
        """Write what has come for this process's own fields into whole tensors.

        Args:
            sent: the result of `send`.
            wholes: a whole tensor for each owned field.
        """
        received = [
            [cut(wholes[each.key], each.layout.boxes[rank]) for each in fields]
            for rank, fields in enumerate(self._sent_by)
        ]
        _unpack(sent.wait(), received)

    def _sizes_to_owners(self) -> list[int]:
        return [sum(size_of(each.layout.own) for each in fields) for fields in self._sent_to]

    def to_holders(
        self, wholes: Mapping[tuple[str, str], Tensor], shards: Mapping[tuple[str, str], Tensor]
    ) -> None:
        """Send each process its box of every owned whole tensor, and write the received boxes into shards."""
        sent = [
            [cut(wholes[each.key], each.layout.boxes[rank]) for each in self._owned]
            for rank in range(self._crew.processes)
        ]
        received = [
            [shards[each.key] for each in self.fields if each.owner == owner]
            for owner in range(self._crew.processes)
        ]
        sizes = [[sum(each.numel() for each in one) for one in many] for many in (sent, received)]
        _unpack(self._send(self._packed(sent), *sizes).wait(), received)

    def _packed(self, sent: Sequence[Sequence[Tensor]]) -> Tensor:
        """One list of tensors for each rank as one buffer."""
        tensors = [each for one in sent for each in one]
        numbers = sum(each.numel() for each in tensors)
        outgoing = torch.empty(numbers, dtype=self._dtype, device=self._device)
        _copy(_views(outgoing, sent), tensors)
        return outgoing

    def _send(
        self,
        outgoing: Tensor,
        sent_sizes: list[int],
        received_sizes: list[int],
        group: Any = None,
    ) -> Sent:
        incoming = torch.empty(sum(received_sizes), dtype=self._dtype, device=self._device)
        work = together(
            GATHERING,
            lambda: dist.all_to_all_single(
                incoming,
                outgoing,
                received_sizes,
                sent_sizes,
                group=self._crew.group if group is None else group,
                async_op=group is not None,
            ),
        )
        return Sent(outgoing, incoming, work)

    @property
    def numbers_to_owners(self) -> int:
        """The numbers that this process sends to other owners."""
        return sum(
            size_of(each.layout.own)
            for owner, fields in enumerate(self._sent_to)
            if owner != self._crew.rank
            for each in fields
        )

    @property
    def numbers_to_holders(self) -> int:
        """The numbers that this process sends to other holders."""
        return sum(
            size_of(box)
            for each in self._owned
            for rank, box in enumerate(each.layout.boxes)
            if rank != self._crew.rank
        )

    @property
    def bytes_per_number(self) -> int:
        """The bytes of a number."""
        return self._dtype.itemsize


def _views(buffer: Tensor, like: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The buffer as tensors of these shapes, one after another."""
    tensors = [each for group in like for each in group]
    parts = buffer.split([each.numel() for each in tensors]) if tensors else []
    return [part.view(each.shape) for part, each in zip(parts, tensors, strict=True)]


def _unpack(incoming: Tensor, received: Sequence[Sequence[Tensor]]) -> None:
    _copy([each for one in received for each in one], _views(incoming, received))


def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    pairs = [(to, of) for to, of in zip(targets, sources, strict=True) if to.numel()]
    if pairs:
        targets, sources = zip(*pairs, strict=True)
        foreach.copy_(targets, sources)


def transports_for(
    fields: Sequence[tuple[Field, torch.dtype]], device: torch.device
) -> list[Transport]:
    """One transport for each crew and dtype, in the order of their first fields."""
    alike: dict[Any, list[Field]] = {}
    crews: dict[Any, Crew] = {}
    for field, dtype in fields:
        key = (field.layout.crew.ranks, dtype)
        crews.setdefault(key, field.layout.crew)
        alike.setdefault(key, []).append(field)
    return [Transport(crews[key], key[1], device, members) for key, members in alike.items()]
