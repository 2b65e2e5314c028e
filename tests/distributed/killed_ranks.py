"""Kills processes of a run at random moments, and compares with a run that nobody killed. `test_killed_ranks` has the checks run
by `ranks`; it is a script too:

    python killed_ranks.py FORKED LAUNCHED SEED

FORKED processes of this script are killed, and started again as torchrun does; then LAUNCHED processes of torchrun, which
take seconds to start. Some moments lie in the start of a process, others in its steps and checkpoints. All starts share one
store, as those of torchrun do.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import torch
import torch._dynamo
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]
from without_pictures import leave_out_pictures

from modular_manifolds.cli.main import main as command_line
from modular_manifolds.training import loop, processes, report

PROCESSES = 2
STEPS = 96
HANG_SECONDS = 30
"""The survivors of a killed process end in less than this; torchrun kills them then."""
RUN = [
    *("--set", "parallel=ddp", "--set", "batch_size=256", "--set", "model.hidden=[16]"),
    *("--steps", str(STEPS), "--set", "evaluate_every=48"),
]
IMPORTED = (loop, processes, report, torch._dynamo)
"""Modules that the command and DistributedDataParallel import late: once here, and not in every process."""


class Forked:
    """Processes that this script has forked; they share a store that outlives them."""

    start_seconds = 0.3

    def __init__(self, folder: Path, restarts: int) -> None:
        self.log = folder.with_suffix(".log")
        self._arguments = ["train", "--out", str(folder), *RUN]
        self._restarts = restarts
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._store = forked(self._keep_store, self.log)
        self._ranks: list[int] = []
        self._start()

    def _keep_store(self) -> int:
        store = TCPStore("127.0.0.1", self._port, is_master=True, wait_for_workers=False)
        signal.pause()
        del store
        return 0

    def _start(self) -> None:
        def train(rank: int) -> Callable[[], int]:
            own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": PROCESSES}
            agent = {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": self._port,
                "TORCHELASTIC_USE_AGENT_STORE": True,
                "TORCHELASTIC_MAX_RESTARTS": self._restarts,
            }

            def run() -> int:
                os.environ.update({name: str(each) for name, each in {**own, **agent}.items()})
                return command_line(self._arguments)

            return run

        self._ranks = [forked(train(rank), self.log) for rank in range(PROCESSES)]

    def workers(self) -> list[int]:
        return list(self._ranks)

    def kill(self, chosen: int) -> None:
        """Kill a process, ask the others to end as torchrun does, and start all again once they have ended."""
        os.kill(chosen, signal.SIGKILL)
        for pid in self._ranks:
            os.kill(pid, signal.SIGTERM)
        codes = [ended(pid, HANG_SECONDS) for pid in self._ranks]
        assert all(codes), (codes, self.log.read_text())
        self._start()

    def finish(self) -> None:
        codes = [ended(pid, 5 * HANG_SECONDS) for pid in self._ranks]
        os.kill(self._store, signal.SIGKILL)
        os.waitpid(self._store, 0)
        assert codes == PROCESSES * [0], self.log.read_text()


class Launched:
    """Processes that torchrun has started, and starts again by itself."""

    start_seconds = 4.0

    def __init__(self, folder: Path, restarts: int) -> None:
        self.log = folder.with_suffix(".log")
        options = ["--nproc-per-node", str(PROCESSES), "--max-restarts", str(restarts)]
        script = str(Path(__file__).with_name("without_pictures.py"))
        with self.log.open("w") as log:
            self._agent = subprocess.Popen(
                [
                    *(sys.executable, "-m", "torch.distributed.run", "--standalone", *options),
                    *(script, "train", "--out", str(folder), *RUN),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def workers(self) -> list[int]:
        assert self._agent.poll() is None, self.log.read_text()
        agent = self._agent.pid
        children = Path(f"/proc/{agent}/task/{agent}/children").read_text()
        return [int(each) for each in children.split()]

    def kill(self, chosen: int) -> None:
        os.kill(chosen, signal.SIGKILL)
        end = time.monotonic() + HANG_SECONDS
        while chosen in (found := self.workers()) or not found:
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.01)

    def finish(self) -> None:
        self._agent.wait(5 * HANG_SECONDS)
        assert self._agent.returncode == 0, self.log.read_text()


def forked(action: Callable[[], int], log: Path) -> int:
    """A process that does `action` and ends with its result; it writes into the log."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = action()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int, seconds: float) -> int:
    """The exit code of a process, which ends in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    raise AssertionError(f"process {pid} hangs")


def kill_one(agent: Forked | Launched, folder: Path, draw: random.Random) -> str:
    """Kill a random process at a random moment, before the run ends; return the moment."""
    early = draw.random() < 0.4
    begun, first = time.monotonic(), lines(folder)
    wait = draw.uniform(0, agent.start_seconds) if early else HANG_SECONDS
    more = draw.randrange(1, STEPS // 6)
    while time.monotonic() - begun < wait:
        now = lines(folder)
        # A run that goes on removes the metrics behind its checkpoint first.
        first = min(first, now)
        if now >= STEPS - STEPS // 4 or (not early and now >= first + more):
            break
        time.sleep(0.001)
    while not (found := agent.workers()):
        time.sleep(0.001)
    agent.kill(draw.choice(found))
    return f"{time.monotonic() - begun:.2f} s after a start, {lines(folder)} lines of metrics"


def lines(folder: Path) -> int:
    metrics = folder / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def files(folder: Path) -> dict[str, bytes]:
    names = ("run.yaml", "metrics.jsonl", "checkpoint.safetensors", "initial.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


@cache
def whole() -> dict[str, bytes]:
    """The files of a run that nobody killed."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "whole"
        Forked(folder, 0).finish()
        return files(folder)


def kill(way: type[Forked | Launched], kills: int, seed: int = 0) -> list[str]:
    """Kill processes of a run, and check that it ends in the bits of one that nobody killed; return the moments."""
    draw = random.Random(seed)
    leave_out_pictures()
    expected = whole()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / way.__name__
        agent = way(folder, kills)
        moments = [kill_one(agent, folder, draw) for _ in range(kills)]
        agent.finish()
        found = files(folder)
    assert [name for name in expected if found[name] != expected[name]] == []
    return moments


def check_forked_once() -> list[str]:
    return kill(Forked, 1)


def check_forked_three_times() -> list[str]:
    return kill(Forked, 3)


def check_launched_once() -> list[str]:
    return kill(Launched, 1)


WORLDS: Final = dict.fromkeys(("forked_once", "forked_three_times", "launched_once"), (0,))
"""Each check forks processes that make a group of their own."""
LONG: Final = dict.fromkeys(("forked_three_times", "launched_once"), (0,))
PLAIN: Final = {"forked_once": (0,)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    many, few, first = map(int, sys.argv[1:])
    for each, count in ((Forked, many), (Launched, few)):
        if count:
            print(
                *kill(each, count, first), f"{each.__name__}: the same bits", sep="\n", flush=True
            )
