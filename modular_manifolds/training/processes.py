"""The processes of one run: their group, the share of each in a batch, and their agreements."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from modular_manifolds.errors import ModularManifoldsError, ProcessError, SpecError
from modular_manifolds.specs import RunSpec
from modular_manifolds.specs.run import Parallel
from modular_manifolds.training.device import device_of
from modular_manifolds.training.launch import Launch
from modular_manifolds.training.meeting import fresh_store

TIMEOUT: Final = timedelta(minutes=30)
"""A collective that lacks a process for so long fails."""

SEED_DISTANCE: Final = 1_000_003
"""The distance between the seeds of two neighbouring processes."""

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among the processes of its run; by default it is alone.

    Numbers travel through the CPU, so no device is waited for. Every method with a collective must be called by all
    processes in the same order.

    Args:
        rank: its number, from 0. Process 0 writes the run directory and prints.
        count: the number of processes.
        parallel: how they share the network.
        device: its own device; None for the device that the run names.
    """

    rank: int = 0
    count: int = 1
    parallel: Parallel = "none"
    device: str | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def check_batch(self, size: int) -> None:
        """Refuse a batch that the processes cannot share equally.

        Raises:
            SpecError: the batch does not divide by the number of processes.
        """
        if size % self.count:
            more = math.ceil(size / self.count) * self.count
            raise SpecError(
                "batch_size",
                f"must divide by the {self.count} processes that share it",
                size,
                f"Write --set batch_size={more}, or start another number of processes.",
            )

    def share(self, batch: Tensor) -> tuple[Tensor, float]:
        """The examples of this process, and the factor on their mean loss.

        The batch is split into `count` consecutive pieces, as equal as possible. The factors make the average over all
        processes the mean over the whole batch: `count · len(piece) / len(batch)`, which is 1 for equal pieces. A process
        without an example takes the first one with factor 0, because all have to take part in a backward pass.
        """
        if self.count == 1:
            return batch, 1.0
        own = batch.tensor_split(self.count)[self.rank]
        factor = self.count * len(own) / len(batch)
        return (own if len(own) else batch[:1]), factor

    def reseed(self, seed: int) -> None:
        """Give every process but the first random numbers of its own."""
        if not self.is_first:
            torch.manual_seed((seed + self.rank * SEED_DISTANCE) % 2**63)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, in float64; the same bits in each."""
        return self.total(values) / self.count if self.count > 1 else values

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, in float64 on the CPU; the same bits in each."""
        if self.count == 1:
            return values
        values = values.to("cpu", torch.float64, copy=True)
        dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return bool(self.total(torch.tensor(float(flag))))

    def gathered(self, value: Tensor) -> list[Tensor]:
        """A tensor of each process, on the CPU and of one shape, in the order of the ranks."""
        if self.count == 1:
            return [value]
        found = [torch.empty_like(value) for _ in range(self.count)]
        dist.all_gather(found, value)
        return found

    def from_first(self, make: Callable[[], T]) -> T:
        """The value that `make` returns in process 0; it is not called in the others. An error is raised in all."""
        if self.count == 1:
            return make()
        told: list[Any] = [None, None]
        if self.is_first:
            try:
                told[0] = make()
            except Exception as error:
                told[1] = (
                    error if isinstance(error, ModularManifoldsError | OSError) else _failure()
                )
                dist.broadcast_object_list(told)
                raise
        dist.broadcast_object_list(told)
        value, error = told
        if isinstance(error, str):
            raise ProcessError("process 0", "must go on", error, "See its own message.")
        if error is not None:
            raise error
        return value

    def tensors_from_first(self, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """The tensors on the CPU that process 0 passes; the others pass None."""
        found = dict(tensors or {})
        if self.count == 1:
            return found
        shapes = self.from_first(lambda: {n: (t.shape, t.dtype) for n, t in found.items()})
        for name, (shape, dtype) in shapes.items():
            sent = found[name].contiguous() if self.is_first else torch.empty(shape, dtype=dtype)
            dist.broadcast(sent.reshape(-1).view(torch.uint8), 0)
            found[name] = sent
        return found


ALONE: Final = Processes()


@contextmanager
def joined(spec: RunSpec) -> Iterator[Processes]:
    """A context in which the processes of a run form a group; it gives this process.

    torch's default group is made here and ended here. If the caller has made one, it is used and left.

    Raises:
        SpecError: the run does not fit the launch or the machine.
        ProcessError: another process of the run was lost.
    """
    launch = Launch.here()
    launch.check(spec.parallel)
    if spec.parallel == "none":
        yield ALONE
        return
    if not dist.is_available():
        remedy = "Install a torch with torch.distributed, or leave parallel out."
        raise SpecError("parallel", "must be none in this torch", spec.parallel, remedy)
    device = _own_device(spec.device, launch)
    made = not dist.is_initialized()
    try:
        if made:
            _make_group(launch, device)
        yield Processes(dist.get_rank(), dist.get_world_size(), spec.parallel, str(device))
    except RuntimeError as error:
        if not _lost(error):
            raise
        raise ProcessError(
            f"process {launch.rank}",
            "must have all processes of its run to the end",
            f"a lost connection ({str(error).splitlines()[0][:120]})",
            f"Read the error of the process that ended first; go on with `{launch.prefix} train --resume RUN_DIR`.",
        ) from None
    finally:
        if made and dist.is_initialized():
            dist.destroy_process_group()


def _make_group(launch: Launch, device: torch.device) -> None:
    if device.type == "cuda":
        # Kernels and NCCL take the current device.
        torch.cuda.set_device(device)
    dist.init_process_group(
        "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl",
        store=fresh_store(launch.rank, launch.count, TIMEOUT),
        rank=launch.rank,
        world_size=launch.count,
        timeout=TIMEOUT,
    )


def _own_device(name: str, launch: Launch) -> torch.device:
    """The device of this process: its own GPU.

    Raises:
        SpecError: a run of several processes names one GPU, or this machine lacks the device.
    """
    if ":" in name and launch.count > 1:
        raise SpecError(
            "device",
            "must be cpu or cuda if several processes train",
            name,
            "Write cuda: each process takes the GPU with its own number.",
        )
    return device_of(f"cuda:{launch.local_rank}" if name == "cuda" else name)


def _lost(error: RuntimeError) -> bool:
    """Whether a collective failed because a process is gone, or has not come in time."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _failure() -> str:
    """The last line of the traceback of the error that is being handled."""
    return traceback.format_exc().strip().splitlines()[-1]
