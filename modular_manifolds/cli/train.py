"""`modular-manifolds train`: start a run, or continue it from its last checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.console import Console

from modular_manifolds.cli.console import open_console
from modular_manifolds.cli.options import INTERRUPTED, Assignments, Data, DataPath, RunFile
from modular_manifolds.specs.optimizers import OptimizerName

if TYPE_CHECKING:
    from modular_manifolds.specs import RunSpec
    from modular_manifolds.training.guarantees import Guarantees
    from modular_manifolds.training.loop import Trainer
    from modular_manifolds.training.part import Data as DataSet

OPTIMIZERS = "|".join(get_args(OptimizerName))


def train(
    run: RunFile = None,
    assignments: Assignments = None,
    data: Data = None,
    data_path: DataPath = None,
    optimizer: Annotated[
        str | None,
        typer.Option(metavar=OPTIMIZERS, help="adamw and muon are torch's own, as baselines."),
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

    Without an argument: the three-layer network of "Modular Manifolds" on the bundled digits, every
    weight on a Stiefel manifold, trained by manifold Muon.

    Examples:

      modular-manifolds train --set optimizer.lr=0.3

      modular-manifolds train --data cifar10 --data-path DIR --optimizer adamw

      modular-manifolds train --data images --data-path DIR

      modular-manifolds train --data text --data-path FILE --steps 1000

      modular-manifolds train --resume runs/digits-steepest-descent-20250101-120000
    """
    from modular_manifolds.cli.runs import merge_assignments, read_run_spec
    from modular_manifolds.errors import ArgumentError
    from modular_manifolds.training.data import read_data, resolve_with_data
    from modular_manifolds.training.loop import check_machine, start
    from modular_manifolds.training.loop import resume as go_on
    from modular_manifolds.training.run_directory import RunDirectory, begin

    console = open_console()
    named = {
        "data.name": data,
        "data.path": data_path,
        "optimizer.name": optimizer,
        "epochs": epochs,
        "steps": steps,
        "seed": seed,
    }
    changes = merge_assignments(named, assignments)
    if resume is not None:
        if run is not None or out is not None or changes:
            raise ArgumentError(
                "--resume",
                "must stand alone",
                "other arguments beside it",
                "A resumed run goes on as its run.yaml says; leave them out.",
            )
        directory = RunDirectory(resume)
        spec = directory.read_run()
        with directory.lock("--resume"):
            data_set = read_data(spec.data)
            unstarted = directory.is_unstarted
            trainer = go_on(spec, data_set, directory)
            _print_start(console, trainer, unstarted=unstarted)
            _run(console, trainer)
        return
    spec = read_run_spec(run, changes)
    with console.status("Reading the data"):
        data_set = read_data(spec.data)
    origin = spec.with_data(data_set.spec, examples=len(data_set.train)).origin_of_rate()
    spec = resolve_with_data(spec, data_set).with_absolute_path()
    check_machine(spec)
    _print_data(console, spec, data_set, origin)
    directory = begin(spec, out)
    with directory.lock("--out"):
        _run(console, start(spec, data_set, directory))


def _print_data(console: Console, spec: RunSpec, data: DataSet, origin: str | None) -> None:
    """Print what the run learns from and the settings that nobody has named."""
    console.print(f"data           {data.summary}", soft_wrap=True)
    if origin is not None:
        rate = f"{spec.optimizer.lr:g}, {origin}; another one: --set optimizer.lr=RATE"
        console.print(f"learning rate  {rate}", soft_wrap=True)
    console.print(
        f"batch          {spec.batch_size} of {len(data.train):,} examples a step", soft_wrap=True
    )


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

    session = trainer.session
    with _stop_on_signals(trainer), Progress(console, session) as progress:
        finished = trainer.run(progress)
    if not finished:
        console.print(f"Stopped after step {session.finished} of {session.steps}. Go on with:")
        console.print(
            f"  modular-manifolds train --resume {trainer.directory.path}", soft_wrap=True
        )
        raise typer.Exit(INTERRUPTED)
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
    console.print(f"declared Lipschitz bound  {found.declared_text}")
    console.print(f"certified from weights    {bounds.certified:.4g}")
    console.print(f"largest slope found       {bounds.empirical:.6g}")
    rows = [row for row in trainer.directory.read_metrics() if "test_accuracy" in row]
    if rows:
        last = rows[-1]
        console.print(
            f"loss                      {last['test_loss']:.4f} on test, "
            f"{last['train_loss']:.4f} on training examples"
        )
        console.print(
            f"accuracy                  {last['test_accuracy']:.1%} on test, "
            f"{last['train_accuracy']:.1%} on training examples"
        )
    if trainer.directory.sample.is_file():
        console.print("\nWhat the network writes:\n")
        sample = trainer.directory.sample.read_text(encoding="utf-8")
        console.print(sample, soft_wrap=True)
        console.print()
    console.print(f"time                      {trainer.seconds}", soft_wrap=True)
    console.print(f"report                    {trainer.directory.report}", soft_wrap=True)
