"""The checks of processes that train one run: each runs in every process, and `test_runs` compares the results."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from forked import long_tests_run, plain_tests_run
from watcher import Watcher

import modular_manifolds as mm
from modular_manifolds.errors import ModularManifoldsError
from modular_manifolds.training import DataSet, Split, load_data, resume, start
from modular_manifolds.training.checkpoint import read_first_checkpoint
from modular_manifolds.training.loop import Trainer
from modular_manifolds.training.processes import ALONE, Processes
from modular_manifolds.training.run_directory import RunDirectory, begin
from modular_manifolds.training.session import Session
from modular_manifolds.training.shared import whole_state

RUNS: Final = [
    *(("ddp", name) for name in ("steepest-descent", "adamw", "muon")),
    *(("fsdp", name) for name in ("steepest-descent", "adamw")),
]
USUAL: Final = (("ddp", "steepest-descent"), ("fsdp", "steepest-descent"))
"""The runs of which plain tests are made."""
WORLDS: Final = {
    "muon_in_shards": (2,),
    "stop": (2,),
    "failed_write": (2,),
    "nonfinite": (2,),
    "other_count": (2,),
    "resumed_ddp": (2, 4),
    "resumed_fsdp": (2, 4),
}
"""The numbers of processes in which a check runs; all if it is not here."""
LONG: Final = {"resumed_ddp": (2, 4)}
"""Those in which only long tests need a check."""
PLAIN: Final = {
    "resumed_fsdp": (2,),
    **dict.fromkeys(("muon_in_shards", "stop", "failed_write"), (2,)),
    **dict.fromkeys(("nonfinite", "other_count"), (2,)),
}
"""Those in which no long test needs it."""


def this_process(parallel: Any = "ddp") -> Processes:
    world = dist.get_world_size()
    return ALONE if world == 1 else Processes(dist.get_rank(), world, parallel)


def data() -> DataSet:
    """The first few digits: an epoch has four batches of 32, and one of 22, which no four processes share equally."""
    whole = load_data("digits")
    return DataSet(
        whole.spec,
        Split(whole.train.images[:150], whole.train.labels[:150]),
        Split(whole.test.images[:50], whole.test.labels[:50]),
        whole.classes,
    )


def spec(*more: str) -> mm.RunSpec:
    return mm.RunSpec().override(["batch_size=32", "epochs=3", *more]).resolved()


def with_dropout(run: mm.RunSpec) -> mm.RunSpec:
    """The run with a network that draws random numbers at every step."""
    net = mm.Linear(64, 32) >> mm.ReLU() >> mm.Dropout(0.1) >> mm.Linear(32, 10)
    return run.model_copy(update={"network": mm.NetworkSpec.from_module(net)})


def a_folder() -> Path:
    """A new folder that all processes know; only the first one writes there."""
    return Path(this_process().from_first(tempfile.mkdtemp))


def begun(run: mm.RunSpec, folder: Path, processes: Processes) -> Trainer:
    directory = processes.from_first(lambda: begin(run, folder))
    return start(run, data(), directory, processes=processes)


def files(folder: Path) -> dict[str, bytes]:
    names = ("metrics.jsonl", "checkpoint.safetensors", "initial.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


def check_trained() -> Any:
    """Each optimiser for a few epochs: weights, metrics and checkpoint at the end."""
    found: dict[str, Any] = {}
    world = dist.get_world_size()
    for parallel, optimizer in RUNS if long_tests_run() else USUAL:
        is_usual = (parallel, optimizer) in USUAL
        if world == 4 and not is_usual:
            continue
        # One process is what long tests compare with, and four are theirs.
        if world == 2 and is_usual and not plain_tests_run():
            continue
        processes = this_process(parallel)
        folder = a_folder() / "run"
        trainer = begun(spec(f"optimizer.name={optimizer}"), folder, processes)
        watcher = Watcher(trainer)
        trainer.run(watcher)
        weights = whole_state(trainer.session.net)
        saved = read_first_checkpoint(trainer.directory.checkpoint, processes).tensors
        found[f"{optimizer}, {parallel}"] = weights, watcher.steps, watcher.epochs, saved
    return found


def check_resumed_ddp() -> Any:
    return _resumed("ddp")


def check_resumed_fsdp() -> Any:
    return _resumed("fsdp")


def _resumed(parallel: str) -> Any:
    """A run that nobody stopped, and one that stopped twice, in folders of the first process."""
    processes, folder = this_process(parallel), a_folder()
    run = with_dropout(spec("epochs=2"))
    whole = begun(run, folder / "whole", processes)
    whole.run(Watcher(whole))
    trainer = begun(run, folder / "a", processes)
    trainer.run(Watcher(trainer, 3))
    stopped = trainer.session.finished
    for stop_after in (4, None):
        torch.manual_seed(999)
        trainer = resume(run, data(), RunDirectory(folder / "a"), processes=processes)
        trainer.run(Watcher(trainer, stop_after))
    same = files(folder / "whole") == files(folder / "a") if processes.is_first else None
    return stopped, trainer.session.finished, same


def check_muon_in_shards() -> Any:
    run = spec("optimizer.name=muon")
    return _message(lambda: Session(run, data(), processes=this_process("fsdp")))


def check_other_count() -> Any:
    """A run that one process began is continued by two, and ends as a run of one process."""
    processes, folder = this_process(), a_folder()
    run = spec()

    def alone() -> dict[str, Any]:
        whole = start(run, data(), begin(run, folder / "whole"))
        whole.run(Watcher(whole))
        first = start(run, data(), begin(run, folder / "a"))
        first.run(Watcher(first, 7))
        return {n: p.detach().clone() for n, p in whole.session.net.named_parameters()}

    expected = processes.from_first(alone)
    trainer = resume(run, data(), RunDirectory(folder / "a"), processes=processes)
    begun_at = trainer.session.finished
    trainer.run(Watcher(trainer))
    weights = {n: p.detach().clone() for n, p in trainer.session.net.named_parameters()}
    return begun_at, expected, weights


def check_stop() -> Any:
    """Only the last process asks to stop."""
    processes = this_process()
    trainer = begun(spec(), a_folder() / "run", processes)
    ended = trainer.run(Watcher(trainer, None if processes.is_first else 3))
    return ended, trainer.session.finished


def check_failed_write() -> Any:
    """The first process cannot write a checkpoint."""
    processes = this_process()
    trainer = begun(spec(), a_folder() / "run", processes)
    if processes.is_first:
        trainer.directory.checkpoint.unlink()
        trainer.directory.checkpoint.mkdir()
    return _message(lambda: trainer.run(Watcher(trainer)))


def check_nonfinite() -> Any:
    """The examples of the last process hold NaN at the first step."""
    processes, broken, run = this_process(), data(), spec()
    session = Session(run, broken, processes=processes)
    if not processes.is_first:
        broken.train.images.fill_(float("nan"))
    before = [each.detach().clone() for each in session.net.parameters()]
    message = _message(session.step)
    same = all(torch.equal(a, b) for a, b in zip(before, session.net.parameters(), strict=True))
    return message, same


def _message(action: Any) -> str:
    try:
        action()
    except (ModularManifoldsError, OSError) as error:
        return str(error)
    return "no error"
