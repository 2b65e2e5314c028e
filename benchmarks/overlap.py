"""Measure whether messages that leave in the backward pass save time, with two processes on the cores of this machine.

    python benchmarks/overlap.py [--width 384] [--layers 4] [--tokens 1024] [--megabytes 4] [--rounds 9]

FSDP2 splits two equal transformers over two processes with one thread each, over gloo. They take turns: one sends all gradients
in the step, and the other sends messages of so many megabytes while the backward pass goes on. Medians over rounds, of the
slower process.
"""

from __future__ import annotations

import argparse
import importlib
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import start_processes

import modular_manifolds as mm
from modular_manifolds.optim.sharded import messages

PROCESSES: Final = 2
WARM_UP_ROUNDS: Final = 2
COLUMNS: Final = ("backward, clock", "step, clock", "both, clock", "both, processor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    defaults = {"width": 384, "layers": 4, "heads": 6, "tokens": 1024, "rounds": 9}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--megabytes", type=float, default=4.0)
    options = parser.parse_args()
    # An optimiser imports the compiler when it is made. Once is enough for all processes.
    importlib.import_module("torch._dynamo")
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        start_processes(_rank, (meeting, options), nprocs=PROCESSES, start_method="fork")


def _rank(rank: int, meeting: str, options: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=PROCESSES
    )
    messages.MESSAGE_BYTES = int(options.megabytes * 2**20)
    contenders = {each: _contender(options, overlap=each) for each in (False, True)}
    found: dict[bool, list[Tensor]] = {False: [], True: []}
    for _ in range(WARM_UP_ROUNDS + options.rounds):
        for overlap, (model, opt) in contenders.items():
            times = torch.tensor(_times(model, opt, options), dtype=torch.float64)
            dist.all_reduce(times, op=dist.ReduceOp.MAX)
            found[overlap].append(times)
    if rank == 0:
        print(str(contenders[True][1].placement).partition("\n")[0])
        _show({each: rows[WARM_UP_ROUNDS:] for each, rows in found.items()})
    dist.destroy_process_group()


def _contender(options: Any, *, overlap: bool) -> tuple[nn.Module, mm.SteepestDescent]:
    torch.manual_seed(0)
    layers = [
        nn.TransformerEncoderLayer(
            options.width, options.heads, 4 * options.width, dropout=0.0, batch_first=True
        )
        for _ in range(options.layers)
    ]
    model = nn.Sequential(*layers)
    plan = mm.adapt(model, progress=False)
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for each in layers:
        fully_shard(each, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, mm.SteepestDescent(plan, 0.1, momentum=0.95, nesterov=True, overlap=overlap)


def _times(model: nn.Module, opt: mm.SteepestDescent, options: Any) -> list[float]:
    """Seconds of a backward pass and of a step by the clock, and of both by the clock and of the processor."""
    generator = torch.Generator().manual_seed(dist.get_rank())
    x = torch.randn(options.tokens // 128, 128, options.width, generator=generator)
    loss = model(x).square().mean()
    dist.barrier()
    start, processor = time.perf_counter(), time.process_time()
    loss.backward()
    middle = time.perf_counter()
    opt.step()
    end = time.perf_counter()
    spent = time.process_time() - processor
    opt.zero_grad()
    return [middle - start, end - middle, end - start, spent]


def _show(found: dict[bool, list[Tensor]]) -> None:
    print(f"{'ms of the slower process':28}" + "".join(f"{each:>18}" for each in COLUMNS))
    for overlap, name in ((False, "all in the step"), (True, "overlap")):
        row = torch.stack(found[overlap]).median(dim=0).values * 1e3
        print(f"{name:28}" + "".join(f"{each:18.0f}" for each in row.tolist()))
    for column in (2, 3):
        pairs = zip(found[True], found[False], strict=True)
        ratios = sorted(float(a[column] / b[column]) for a, b in pairs)
        print(
            f"overlap / all in the step, {COLUMNS[column]}: {median(ratios):.3f}, "
            f"rounds {ratios[0]:.2f} to {ratios[-1]:.2f}"
        )


if __name__ == "__main__":
    main()
