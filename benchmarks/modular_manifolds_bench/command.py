"""The command `modular-manifolds bench`: its options, the run, and the table that it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from modular_manifolds.cli.console import open_console
from modular_manifolds.cli.tables import show_table
from modular_manifolds.specs.whole import check_writable
from modular_manifolds_bench.recordings import Settings
from modular_manifolds_bench.report import HEADER, Report, cells
from modular_manifolds_bench.run import run

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="manifold-muon, dual-ascent, plain-muon, whole-step, memory, drift or gpt-forward; repeatable.",
        ),
    ] = None,
    data_path: Annotated[
        Path | None,
        typer.Option(help="A folder with CIFAR-10's Parquet files; enlarged digits without it."),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads that torch computes with.")] = 2,
    rounds: Annotated[int, typer.Option(help="Rounds of a comparison, at most.")] = 30,
    drift_steps: Annotated[int, typer.Option(help="Steps of the drift benchmark.")] = 10_000,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as JSON too.")
    ] = None,
) -> None:
    """Measure steps, memory and drift beside torch's and geoopt's optimisers.

    The gradients are recorded from trainings that run first. Without --data-path nothing is downloaded.
    """
    if json is not None:
        check_writable(json, argument="--json")
    console = open_console()
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("starting", total=None)
        seen: list[str] = []

        def watch(what: str) -> None:
            progress.update(task, description=what)
            topic = what.partition(":")[0]
            # If there is no terminal: a line for each topic, not for each step of a training.
            if not console.is_terminal and seen[-1:] != [topic]:
                seen.append(topic)
                console.print(topic, soft_wrap=True)

        settings = Settings(
            data_path=data_path, rounds=rounds, drift_steps=drift_steps, watch=watch
        )
        report = run(settings, only=only or (), threads=threads)
    if json is not None:
        report.write(json)
    _show(console, report)
    if json is not None:
        console.print(f"report    {json}", soft_wrap=True)


def _show(console: Console, report: Report) -> None:
    show_table(console, "Benchmarks", HEADER, cells(report.rows))
    here = report.environment
    for line in (
        f"data      {report.data}",
        f"machine   {here.cpu}, {here.threads} threads, torch {here.torch}, Python {here.python}",
        f"took      {report.seconds:.0f} s",
        f"missed    {len(report.missed)} of {sum(row.met is not None for row in report.rows)} bars",
    ):
        console.print(line, soft_wrap=True)
    for row in report.missed:
        console.print(f"  {row.what}", soft_wrap=True)
