"""`modular-manifolds train`: start a run, or continue it from its last checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.console import Console

from modular_manifolds.cli.console import open_console, visible
from modular_manifolds.cli.options import INTERRUPTED, Assignments, Data, DataPath, RunFile
from modular_manifolds.errors import ArgumentError
from modular_manifolds.specs.optimizers import OptimizerName

if TYPE_CHECKING:
    from modular_manifolds.specs import RunSpec
    from modular_manifolds.training.guarantees import Guarantees
    from modular_manifolds.training.loop import Trainer
    from modular_manifolds.training.part import Data as DataSet
    from modular_manifolds.training.processes import Processes
    from modular_manifolds.training.run_directory import RunDirectory

OPTIMIZERS = ", ".join(get_args(OptimizerName))


def train(
    run: RunFile = None,
    assignments: Assignments = None,
    data: Data = None,
    data_path: DataPath = None,
    optimizer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"{OPTIMIZERS}; adamw and muon are torch's own."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the run, in the place of whole epochs.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seeds the weights and the order.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The run directory; a new one under runs/ without it."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR", help="Go on, bit for bit, where this run stopped."),
    ] = None,
) -> None:
    """Train a network and report what is guaranteed about it.

    The default run: three layers, the bundled digits, manifold Muon.

    Examples:

      modular-manifolds train --set optimizer.lr=0.3

      modular-manifolds train --data cifar10 --data-path DIR --optimizer adamw

      modular-manifolds train --data images --data-path DIR

      modular-manifolds train --data text --data-path FILE --steps 1000

      modular-manifolds train --resume runs/digits-steepest-descent-20250101-120000
    """
    from modular_manifolds.cli.runs import merge_assignments, read_run_spec
    from modular_manifolds.training.processes import joined
    from modular_manifolds.training.run_directory import RunDirectory

    named = {
        "data.name": data,
        "data.path": data_path,
        "optimizer.name": optimizer,
        "epochs": epochs,
        "steps": steps,
        "seed": seed,
    }
    changes = merge_assignments(named, assignments)
    if resume is None:
        spec = read_run_spec(run, changes)
        with joined(spec) as processes:
            _begin(spec, out, processes)
        return
    if run is not None or out is not None or changes:
        raise ArgumentError(
            "--resume",
            "must stand alone",
            "other arguments beside it",
            "A resumed run goes on as its run.yaml says; leave them out.",
        )
    directory = RunDirectory(resume)
    spec = directory.read_run()
    with joined(spec) as processes, ExitStack() as stack:
        processes.from_first(lambda: stack.enter_context(directory.lock("--resume")))
        _go_on(spec, directory, processes)


def _begin(spec: RunSpec, out: Path | None, processes: Processes) -> None:
    """Start a new run; or go on with it, if torchrun may have started it before."""
    from modular_manifolds.training.data import read_data, resolve_with_data
    from modular_manifolds.training.launch import Launch
    from modular_manifolds.training.loop import check_machine, start
    from modular_manifolds.training.run_directory import begin, begin_or_find

    console = open_console(quiet=not processes.is_first)
    again = Launch.here().max_restarts > 0
    if again and out is None:
        raise ArgumentError(
            "--out",
            "must be given with torchrun --max-restarts",
            "nothing",
            "A restart finds the run in its folder: write --out runs/NAME.",
        )
    with console.status("Reading the data"):
        data_set = read_data(spec.data)
    origin = spec.with_data(data_set.spec, examples=len(data_set.train)).origin_of_rate()
    spec = resolve_with_data(spec, data_set).with_absolute_path()
    check_machine(spec, processes)
    with ExitStack() as stack:

        def opened() -> tuple[RunDirectory, bool]:
            found = begin_or_find(spec, out) if again and out else (begin(spec, out), True)
            stack.enter_context(found[0].lock("--out"))
            return found

        directory, is_new = processes.from_first(opened)
        if not is_new:
            _go_on(spec, directory, processes)
            return
        _print_data(console, spec, data_set, origin, processes)
        try:
            trainer = start(spec, data_set, directory, processes=processes)
        except Exception:
            # Otherwise the folder would refuse the run that is mended.
            if processes.is_first:
                directory.remove_unstarted_()
            raise
        _run(console, trainer)


def _go_on(spec: RunSpec, directory: RunDirectory, processes: Processes) -> None:
    """Continue a run from its last checkpoint."""
    from modular_manifolds.training.data import read_data
    from modular_manifolds.training.loop import resume

    console = open_console(quiet=not processes.is_first)
    data_set = read_data(spec.data)
    unstarted = processes.from_first(lambda: directory.is_unstarted)
    trainer = resume(spec, data_set, directory, processes=processes)
    _print_start(console, trainer, unstarted=unstarted)
    _run(console, trainer)


def _print_data(
    console: Console, spec: RunSpec, data: DataSet, origin: str | None, processes: Processes
) -> None:
    """Print what the run learns from and the settings that nobody has named."""
    console.print(f"data           {data.summary}", soft_wrap=True)
    if origin is not None:
        rate = f"{spec.optimizer.lr:g}, {origin}; another one: --set optimizer.lr=RATE"
        console.print(f"learning rate  {rate}", soft_wrap=True)
    console.print(
        f"batch          {spec.batch_size} of {len(data.train):,} examples a step", soft_wrap=True
    )
    if processes.count > 1:
        each = spec.batch_size // processes.count
        console.print(f"processes      {processes.count}, each with {each} of them", soft_wrap=True)


def _print_start(console: Console, trainer: Trainer, *, unstarted: bool) -> None:
    session = trainer.session
    if unstarted:
        text = f"This run had no checkpoint yet. It starts from its beginning, of {session.steps} steps."
    elif session.done:
        text = f"Nothing to do: all {session.steps} steps of this run are done."
    else:
        text = f"Going on after step {session.finished} of {session.steps}."
    console.print(text, soft_wrap=True)


def _run(console: Console, trainer: Trainer) -> None:
    from modular_manifolds.cli.progress import Progress
    from modular_manifolds.training.launch import Launch

    session = trainer.session
    with _stop_on_signals(trainer), Progress(console, session) as progress:
        finished = trainer.run(progress)
    if not finished:
        text = f"Stopped after step {session.finished} of {session.steps}. Go on with:"
        console.print(text, soft_wrap=True)
        command = f"{Launch.here().prefix} train --resume {trainer.directory.path}"
        console.print(f"  {command}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED)
    if session.processes.is_first:
        _show_results(console, trainer)


@contextmanager
def _stop_on_signals(trainer: Trainer) -> Iterator[None]:
    """A context in which Ctrl-C and SIGTERM let the step finish; then the run writes a checkpoint and returns."""
    if threading.current_thread() is not threading.main_thread():
        # Python delivers signals to the main thread only.
        yield
        return
    asked = False

    def request_stop(*_: object) -> None:
        nonlocal asked
        asked = True

    trainer.stop = lambda: asked
    before = {each: signal.signal(each, request_stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _show_results(console: Console, trainer: Trainer) -> None:
    from modular_manifolds.cli.tables import show_table
    from modular_manifolds.training.report import write_report

    with trainer.seconds("report"), console.status("Writing the report") as status:
        found: Guarantees = write_report(
            trainer, lambda stage: status.update(f"Writing the report: {stage}")
        )
    console.print()
    name = trainer.session.spec.optimizer.name
    unused = "" if name == "steepest-descent" else f" ({name} does not use it)"
    show_table(console, f"Learning-rate split{unused}", found.budget.header(), found.budget.cells())
    show_table(
        console, "Guarantees: every weight", found.conditioning.header(), found.conditioning.cells()
    )
    bounds = found.lipschitz
    console.print(f"declared Lipschitz bound  {found.declared_text}", soft_wrap=True)
    console.print(f"certified from weights    {bounds.certified:.4g}", soft_wrap=True)
    console.print(f"largest slope found       {bounds.empirical:.6g}", soft_wrap=True)
    rows = [row for row in trainer.directory.read_metrics() if "test_accuracy" in row]
    if rows:
        last = rows[-1]
        console.print(
            f"loss                      {last['test_loss']:.4f} on test, "
            f"{last['train_loss']:.4f} on training examples",
            soft_wrap=True,
        )
        console.print(
            f"accuracy                  {last['test_accuracy']:.1%} on test, "
            f"{last['train_accuracy']:.1%} on training examples",
            soft_wrap=True,
        )
    if trainer.directory.sample.is_file():
        console.print("\nWhat the network writes:\n", soft_wrap=True)
        sample = trainer.directory.sample.read_text(encoding="utf-8")
        console.print(visible(sample), soft_wrap=True)
        console.print()
    console.print(f"time                      {trainer.seconds}", soft_wrap=True)
    console.print(f"report                    {trainer.directory.report}", soft_wrap=True)
