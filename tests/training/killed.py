"""Ends a tiny run, or a tiny sweep, before each of its writes in turn, and goes on with it: a script for test_killed.

It forks, so it is a process of its own that has one thread.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import modular_manifolds as mm
from modular_manifolds.training import resume, start
from modular_manifolds.training.data import DataSet, load_data
from modular_manifolds.training.metrics import EpochMetrics, StepMetrics
from modular_manifolds.training.run_directory import RunDirectory, begin
from modular_manifolds.training.split import Split
from modular_manifolds.training.sweep import Arm, Plan, Results, run_points
from modular_manifolds.training.sweep.plan import Size

KILLED = 9
TWICE = 25
"""The kill after which what goes on is killed too: a checkpoint is there, and metrics behind it."""
WRITES = {"os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "os.chmod", "os.truncate"}


class Unobserved:
    def on_step(self, metrics: StepMetrics) -> None: ...

    def on_epoch(self, metrics: EpochMetrics) -> None: ...


def run_killed(action: Callable[[Path], object], folder: Path, after: int) -> bool:
    """Whether `action` was ended right before its write number `after`, counted from 0; there were fewer if not."""
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, KILLED), code
        return code == KILLED
    left = after

    def before_each(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in WRITES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            if not str(arguments[0]).startswith(str(folder)):
                return
            if left == 0:
                os._exit(KILLED)
            left -= 1

    sys.addaudithook(before_each)
    try:
        action(folder)
    except BaseException as error:
        traceback.print_exception(error)
        os._exit(1)
    os._exit(0)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`."""
    files = (each for each in folder.rglob("*") if each.is_file())
    return {str(each.relative_to(folder)): each.read_bytes() for each in files}


def data() -> DataSet:
    whole = load_data("digits")
    train, test = (Split(each.images[:24], each.labels[:24]) for each in (whole.train, whole.test))
    return DataSet(whole.spec, train, test, whole.classes)


def kill_runs() -> int:
    """How many writes a run, begun or gone on with, was ended before."""
    few = data()
    spec = mm.RunSpec().override(["model.hidden=[4]", "batch_size=12", "epochs=2"])
    spec = spec.resolved()

    def begun(folder: Path) -> None:
        start(spec, few, begin(spec, folder / "r")).run(Unobserved())

    def gone_on(folder: Path) -> None:
        directory = RunDirectory(folder / "r")
        resume(directory.read_run(), few, directory).run(Unobserved())

    def gone_on_or_begun(folder: Path) -> None:
        (gone_on if (folder / "r").exists() else begun)(folder)

    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "whole").mkdir()
        begun(root / "whole")
        expected = contents(root / "whole")
        kills = 0
        while run_killed(begun, killed := root / f"begun{kills}", kills):
            if kills == TWICE:
                # And once more, before each write of what goes on with it.
                again = 0
                while run_killed(gone_on_or_begun, copy := copied(killed, root), again):
                    gone_on_or_begun(copy)
                    assert contents(copy / "r") == contents(root / "whole" / "r"), (kills, again)
                    again += 1
            gone_on_or_begun(killed)
            assert contents(killed / "r") == contents(root / "whole" / "r"), kills
            kills += 1
        assert contents(root / f"begun{kills}") == expected
        return kills


def copied(folder: Path, root: Path) -> Path:
    copy = root / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    if folder.exists():
        shutil.copytree(folder, copy)
    return copy


def kill_sweeps() -> int:
    """How many writes a sweep was ended before."""
    run = mm.RunSpec().override(["model.hidden=[2]", "steps=1", "batch_size=8"])
    arm = Arm("adamw")

    def swept(folder: Path) -> list[dict[str, Any]]:
        plan = Plan(run, (Size(),), {arm: (-12, -11)})
        kept = Results(folder / "s")
        kept.open(run)
        with kept.lock():
            results = run_points(plan, kept, watch=lambda *_: None)
            rows = [result.row() for result in results]
        return [{key: each[key] for key in each if key != "seconds"} for each in rows]

    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        expected = swept(root / "whole")
        names = set(contents(root / "whole"))
        kills = 0
        while run_killed(swept, killed := root / f"killed{kills}", kills):
            assert swept(killed) == expected, kills
            assert {f"s/{each}" for each in contents(killed / "s")} == names, kills
            kills += 1
        return kills


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(kill_runs(), kill_sweeps())
