"""Processes of one machine that train together over gloo. A script: `python ranks.py FOLDER NAME=plain|long|all...`.

Imports are made once and the processes are forked from here, because a process that has run autograd must not be forked. Each
process runs every function `check_…` of NAME.py, and saves the result as FOLDER/NAME/WORLD-RANK-CHECK.pt. NAME.py has a table
`WORLDS` of the sizes in which a check runs; others run in all. It may have tables `LONG` and `PLAIN`, of the sizes in which only
long tests, or only the others, need a check.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import torch
import torch.distributed as dist
from forked import tell
from long_tests import is_long
from torch.multiprocessing.spawn import start_processes

IMPORTED_LATE = ("torch._dynamo", "torch.distributed.fsdp", "torch.distributed.tensor")
"""Imports of DistributedDataParallel and FSDP2: done here once, they are not done in every process."""
TIMEOUT_SECONDS = 300
"""After so long a collective that lacks a process fails: a hang is an error, not a wait."""
PLAIN_WORLDS: Final = {
    "ddp_checks": (1, 2),
    "sharded_checks": (1, 2),
    "overlap_checks": (2,),
    "run_checks": (1, 2),
    "checkpoint_checks": (2, 1),
    "lost_checks": (1, 2, 3),
    "killed_ranks": (0,),
}
"""The scripts, and the sizes of their worlds in a plain run, in order. A world of size 0 is one process without a group."""
LONG_WORLDS: Final = {
    "ddp_checks": (1, 2, 4),
    "sharded_checks": (1, 2, 4),
    "overlap_checks": (2, 4),
    "run_checks": (1, 2, 4),
    # One and two processes come twice: the second time they find what more have saved.
    "checkpoint_checks": (1, 2, 4, 2, 1),
    "lost_checks": (1, 2, 3),
    "killed_ranks": (0,),
}
"""Those in a run with long tests of the script."""


def folder_of_results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The results of the script `CHECKS` of a test file.

    The first worker that asks starts the scripts of all tests of this run, in one process that imports once. If they fail, every
    test says why.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if hasattr(request.config, "workerinput") else base
    folder = base / "ranks"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        if not done.exists():
            done.write_text(_start(folder, _scripts(request.session.items)))
        failure = done.read_text()
    assert not failure, failure
    return folder / request.module.CHECKS


def _scripts(items: Iterable[pytest.Item]) -> dict[str, str]:
    """The scripts that tests compare, and whether these tests are `plain`, `long` or of both kinds: `all`."""
    found: dict[str, str] = {}
    for item in items:
        script = getattr(getattr(item, "module", None), "CHECKS", None)
        if script is not None:
            kind = "long" if is_long(item) else "plain"
            found[script] = kind if found.get(script, kind) == kind else "all"
    return found


def _start(folder: Path, scripts: dict[str, str]) -> str:
    """Run the scripts, and return what they printed if they fail."""
    wanted = [f"{name}={extent}" for name, extent in scripts.items()]
    tests = Path(__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, __file__, str(folder), *wanted],
        check=False,
        capture_output=True,
        text=True,
        timeout=1200,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")]),
        },
    )
    return ran.stdout + ran.stderr + f"\nexit code {ran.returncode}" if ran.returncode else ""


def results(folder: Path, world: int, name: str) -> list[Any]:
    """The result of a check on each rank; an error is raised again."""
    found = [
        torch.load(folder / f"{world}-{rank}-{name}.pt", weights_only=False)
        for rank in range(max(world, 1))
    ]
    for rank, (result, error) in enumerate(found):
        assert error is None, f"rank {rank} of {world}: {error}"
        del result
    return [result for result, _ in found]


def _rank(
    rank: int, world: int, number: int, folder: str, checks: dict[str, Callable[[], Any]]
) -> None:
    torch.set_num_threads(1)
    if world:
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
    if world:
        dist.destroy_process_group()


def _checks(module: ModuleType, world: int, extent: str) -> dict[str, Callable[[], Any]]:
    """The checks that run in a world."""
    found: dict[str, Callable[[], Any]] = {}
    unread = {"plain": "LONG", "long": "PLAIN"}.get(extent, "")
    left_out: dict[str, tuple[int, ...]] = getattr(module, unread, {})
    for function, check in vars(module).items():
        name = function.removeprefix("check_")
        if name == function or world not in module.WORLDS.get(name, (world,)):
            continue
        if world not in left_out.get(name, ()):
            found[name] = check
    return found


def _main() -> None:
    folder, *wanted = sys.argv[1:]
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    scripts = [each.partition("=") for each in wanted]
    modules = {name: importlib.import_module(name) for name, _, _ in scripts}
    for name, _, extent in scripts:
        own = Path(folder) / name
        own.mkdir()
        tell(own, extent)
        worlds = (PLAIN_WORLDS if extent == "plain" else LONG_WORLDS)[name]
        # A world may come twice, and must not read the addresses of its first time.
        for number, world in enumerate(worlds):
            checks = _checks(modules[name], world, extent)
            arguments = (world, number, str(own), checks)
            start_processes(_rank, arguments, nprocs=max(world, 1), start_method="fork")


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    _main()
