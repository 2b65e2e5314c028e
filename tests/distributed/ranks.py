"""Processes of one machine that train together over gloo. A script: `python ranks.py FOLDER SCRIPT WORLDS...`.

Imports are made once and the processes are forked from here, because a process that has run autograd must not be forked. Each
process runs every function `check_…` of SCRIPT, and saves the result as FOLDER/WORLD-RANK-NAME.pt. SCRIPT may have a table
`WORLDS` of the sizes in which a check runs; others run in all.
"""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

IMPORTED_LATE = ("torch._dynamo", "torch.distributed.fsdp", "torch.distributed.tensor")
"""Imports of DistributedDataParallel and FSDP2: done here once, they are not done in every process."""
TIMEOUT_SECONDS = 60
"""After so long a collective that lacks a process fails: a hang is an error, not a wait."""


def start_once(script: Path, folder: Path, *worlds: int) -> None:
    """Run the script's checks in worlds of so many processes, unless another worker of this test run has done it."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            _start(script, folder, *worlds)
            (folder / "done").touch()


def _start(script: Path, folder: Path, *worlds: int) -> None:
    command = [sys.executable, __file__, str(folder), str(script), *map(str, worlds)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def results(folder: Path, world: int, name: str) -> list[Any]:
    """The result of a check on each rank; an error is raised again."""
    found = [
        torch.load(folder / f"{world}-{rank}-{name}.pt", weights_only=False)
        for rank in range(world)
    ]
    for rank, (result, error) in enumerate(found):
        assert error is None, f"rank {rank} of {world}: {error}"
        del result
    return [result for result, _ in found]


def _rank(
    rank: int, world: int, number: int, folder: str, checks: dict[str, Callable[[], Any]]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting-{number}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=TIMEOUT_SECONDS),
    )
    for name, check in checks.items():
        torch.manual_seed(0)
        result, error = None, None
        try:
            result = check()
        except Exception:
            error = traceback.format_exc()
        torch.save((result, error), f"{folder}/{world}-{rank}-{name}.pt")
    dist.destroy_process_group()


def _main() -> None:
    folder, script, *worlds = sys.argv[1:]
    sys.path.insert(0, str(Path(script).parent))
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    spec = importlib.util.spec_from_file_location("checks", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checks = {
        name.removeprefix("check_"): check
        for name, check in vars(module).items()
        if name.startswith("check_")
    }
    # A world may come twice, and must not read the addresses of its first time.
    for number, world in enumerate(map(int, worlds)):
        known = {
            name: each
            for name, each in checks.items()
            if world in module.WORLDS.get(name, (world,))
        }
        start_processes(_rank, (world, number, folder, known), nprocs=world, start_method="fork")


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    _main()
