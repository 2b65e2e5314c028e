"""Measure the cost of solves if two processes deal them out, beside one process on the same cores.

    python benchmarks/ddp_solves.py [--width 384] [--layers 4] [--rounds 7]

Three contenders take a step each in turn, on the hidden matrices of a transformer with the same gradients:

- two processes with one thread each, over gloo;
- one process with two threads: the same cores;
- one process with one thread: the same work as the two together.

The cost of solves is the processor time inside the solves of the process that has most of it. Medians over rounds.
"""

from __future__ import annotations

import argparse
import importlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Final

os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
# Idle threads that spin would take time from the contender whose turn it is.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import modular_manifolds as mm
from modular_manifolds.optim import on_host

WARM_UP_ROUNDS: Final = 1
"""Rounds that do not count: state and buffers are made in the first."""


@dataclass(frozen=True)
class Contender:
    """Processes that step together.

    Args:
        name: the name in the table.
        processes: their number.
        threads: the threads of each.
    """

    name: str
    processes: int
    threads: int
    ends: list[Connection] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """A step in seconds.

    Args:
        wall: of the whole step.
        processor: of the whole step, user and system.
        solves: of the solves, user and system.
        solves_wall: of the solves, by the clock.
    """

    wall: float
    processor: float
    solves: float
    solves_wall: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    for name, default in (("width", 384), ("layers", 4), ("heads", 6), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    contenders = [
        Contender("2 processes, 1 thread each", 2, 1),
        Contender("1 process, 2 threads", 1, 2),
        Contender("1 process, 1 thread", 1, 1),
    ]
    # An optimiser imports the compiler when it is made. Once is enough for all processes.
    importlib.import_module("torch._dynamo")
    context = get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for number, each in enumerate(contenders):
            for rank in range(each.processes):
                here, there = context.Pipe()
                each.ends.append(here)
                meeting = str(Path(folder) / f"{number}")
                started.append(
                    context.Process(target=_rank, args=(there, each, rank, meeting, options))
                )
                started[-1].start()
        placement, *_ = [end.recv() for each in contenders for end in each.ends]
        rounds = [
            _step(each) for _ in range(WARM_UP_ROUNDS + options.rounds) for each in contenders
        ]
        for each in contenders:
            for end in each.ends:
                end.send(False)
        for each in started:
            each.join()
    found = {
        each.name: rounds[number + WARM_UP_ROUNDS * len(contenders) :: len(contenders)]
        for number, each in enumerate(contenders)
    }
    print(f"{options.layers} layers of width {options.width}, medians of {options.rounds} rounds")
    print(placement)
    _show(found)


def _step(contender: Contender) -> Measured:
    """One step of all processes of a contender: the largest of each number."""
    for end in contender.ends:
        end.send(True)
    steps: list[Measured] = [end.recv() for end in contender.ends]
    return Measured(
        *(
            max(getattr(step, name) for step in steps)
            for name in ("wall", "processor", "solves", "solves_wall")
        )
    )


def _show(found: dict[str, list[Measured]]) -> None:
    medians: dict[str, dict[str, float]] = {
        name: {
            column: median(getattr(each, column) for each in steps)
            for column in ("solves", "processor", "solves_wall", "wall")
        }
        for name, steps in found.items()
    }
    print(
        f"{'ms of the slowest process':28} {'solves, CPU':>12} {'step, CPU':>10} {'solves':>8} {'step':>8}"
    )
    for name, row in medians.items():
        print(
            f"{name:28} {1e3 * row['solves']:12.1f} {1e3 * row['processor']:10.1f} "
            f"{1e3 * row['solves_wall']:8.1f} {1e3 * row['wall']:8.1f}"
        )
    two, same_cores, alone = medians.values()
    print(
        f"cost of solves, a process of two / one process with one thread: {two['solves'] / alone['solves']:.2f} (CPU)"
    )
    print(
        f"cost of solves, a process of two / one process on the same cores: {two['solves'] / same_cores['solves']:.2f} (CPU)"
    )
    print(
        f"time of a step, two processes / one process on the same cores: {two['wall'] / same_cores['wall']:.2f} (clock)"
    )


def _rank(end: Connection, contender: Contender, rank: int, meeting: str, options: Any) -> None:
    """One process: build the model, then step as often as it is asked to."""
    torch.set_num_threads(contender.threads)
    several = contender.processes > 1
    if several:
        dist.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=contender.processes
        )
    opt, parameters = _optimizer(options, wrapped=several)
    generator = torch.Generator().manual_seed(1)
    end.send(str(opt.placement))
    while end.recv():
        for each in parameters:
            each.grad = torch.randn(each.shape, generator=generator)
        if several:
            dist.barrier()
        with _timed_solves() as spent:
            wall, processor = time.perf_counter(), time.process_time()
            opt.step()
            end.send(
                Measured(
                    time.perf_counter() - wall,
                    time.process_time() - processor,
                    spent["processor"],
                    spent["wall"],
                )
            )
    if several:
        dist.destroy_process_group()


def _optimizer(options: Any, *, wrapped: bool) -> tuple[mm.SteepestDescent, list[nn.Parameter]]:
    torch.manual_seed(0)
    layers = [
        nn.TransformerEncoderLayer(
            options.width, options.heads, 4 * options.width, batch_first=True
        )
        for _ in range(options.layers)
    ]
    model = nn.Sequential(*layers)
    network = DistributedDataParallel(model) if wrapped else model
    plan = mm.adapt(network, progress=False)
    opt = mm.SteepestDescent(plan, 0.1, momentum=0.95, nesterov=True)
    return opt, list(model.parameters())


@contextmanager
def _timed_solves() -> Iterator[dict[str, float]]:
    """While inside, the time of every solve and retraction of a matrix is added up."""
    spent = {"processor": 0.0, "wall": 0.0}
    step: Callable[..., Any] = on_host.take_planned_step

    def timed(geometry: mm.Geometry, plan: Any, point: torch.Tensor, *rest: Any) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        result = step(geometry, plan, point, *rest)
        if min(point.shape[-2:]) > 1:
            spent["wall"] += time.perf_counter() - wall
            spent["processor"] += time.process_time() - processor
        return result

    on_host.take_planned_step = timed
    try:
        yield spent
    finally:
        on_host.take_planned_step = step


if __name__ == "__main__":
    main()
