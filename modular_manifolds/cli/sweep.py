"""`modular-manifolds sweep`: the best learning rate at every size, and its change with the size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, cast, get_args

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from modular_manifolds.arguments import check_count, check_unlike
from modular_manifolds.cli.console import open_console
from modular_manifolds.cli.options import INTERRUPTED, Assignments, Data, DataPath, RunFile
from modular_manifolds.errors import ArgumentError

if TYPE_CHECKING:
    from modular_manifolds.specs import RunSpec
    from modular_manifolds.training.sweep import Plan, Results
    from modular_manifolds.training.sweep.results import Result
    from modular_manifolds.training.sweep.rounds import Prepared
    from modular_manifolds.training.sweep.summary import Summary

RATES: Final = "2^-6..2^1"
MAX_JOBS: Final = 256
"""The largest number of processes of a sweep."""


def sweep(
    run: RunFile = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V,V,…",
            help="Sizes in increasing order, such as model.width=32,64; repeatable: all combinations.",
        ),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTIMIZER[,KEY=VALUE…]",
            help="An optimiser to compare, such as adamw or adamw,steps=200; repeatable. "
            "Default: the optimiser of the run.",
        ),
    ] = None,
    lr: Annotated[
        str,
        typer.Option(
            metavar="LOW..HIGH", help="Learning rates: powers of √2 between two powers of 2."
        ),
    ] = RATES,
    arm_lr: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARM=LOW..HIGH",
            help="Learning rates of one arm, such as adamw=2^-14..2^-5; repeatable.",
        ),
    ] = None,
    grid: Annotated[
        str,
        typer.Option(
            metavar="full|coarse|refined",
            help="Factors between rates: √2; 2; or 2, and then √2 around the best rate.",
        ),
    ] = "full",
    seeds: Annotated[int, typer.Option(help="Runs at each rate.")] = 1,
    assignments: Assignments = None,
    data: Data = None,
    data_path: DataPath = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, …")] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The sweep's folder; an existing sweep continues.")
    ] = Path("sweep"),
    jobs: Annotated[
        int, typer.Option(help=f"The number of parallel processes, at most {MAX_JOBS}.")
    ] = 1,
    max_runs: Annotated[int, typer.Option(help="The largest number of runs.")] = 10_000,
) -> None:
    """Train at every size, with every arm, at every learning rate, and report the best rates.

    Finished runs are kept, so the same command continues a stopped sweep.

    Example:

      modular-manifolds sweep --data cifar10 --data-path DIR --set model.name=residual-mlp --set steps=120
      --over model.width=32,64,128 --arm steepest-descent --arm adamw --arm-lr adamw=2^-14..2^-5 -o transfer
    """
    from modular_manifolds.cli.runs import keys_of, merge_assignments, read_run_spec
    from modular_manifolds.specs.whole import write_whole
    from modular_manifolds.training.environment import Environment
    from modular_manifolds.training.sweep import Results, prepare, summaries
    from modular_manifolds.training.sweep.figure import panel, transfer

    if not 1 <= jobs <= MAX_JOBS:
        raise ArgumentError("--jobs", f"must be from 1 to {MAX_JOBS}", jobs, "Pass the cores.")
    check_count(max_runs, argument="--max-runs", what="runs")
    if "optimizer.lr" in keys_of(assignments or ()):
        raise ArgumentError(
            "--set",
            "must leave the rate of a sweep to --lr",
            "optimizer.lr",
            "Write --lr, or --arm-lr for one arm.",
        )
    console = open_console()
    named = {"data.name": data, "data.path": data_path, "device": device}
    plan = _plan(
        read_run_spec(run, merge_assignments(named, assignments)),
        over or (),
        arm or (),
        lr,
        arm_lr or (),
        grid,
        seeds,
        max_runs,
    )
    # Before the folder is made, so that wrong arguments leave no files.
    prepared = prepare(plan)
    kept = Results(out)
    kept.open(plan.run)
    with kept.lock():
        try:
            results = _run_points(console, plan, kept, jobs, prepared)
        except typer.Exit:
            raise
        except Exception:
            kept.remove_if_empty_()
            raise
        here = Environment.current(threads=plan.run.threads or 0, device=plan.run.device)
        kept.write(results, here)
        found = summaries(results, list(plan.ranges), plan.sizes)
        write_whole(kept.figure, transfer([panel(summary) for summary in found]))
    _show(console, found)
    console.print(f"results   {kept.json}", soft_wrap=True)
    console.print(f"picture   {kept.figure}", soft_wrap=True)


def _plan(
    run: RunSpec,
    over: Sequence[str],
    arms: Sequence[str],
    lr: str,
    arm_lr: Sequence[str],
    grid: str,
    seeds: int,
    max_runs: int,
) -> Plan:
    from modular_manifolds.training.sweep.plan import Arm, Grid, Plan, parse_range, parse_sizes

    if grid not in get_args(Grid):
        raise ArgumentError("--grid", "must be full, coarse or refined", repr(grid), "Name one.")
    if run.parallel != "none":
        raise ArgumentError(
            "parallel",
            "must be none in a sweep, whose runs have one process each",
            run.parallel,
            "Leave it out; --jobs trains several runs at a time.",
        )
    if run.tensorboard:
        raise ArgumentError(
            "tensorboard",
            "must be false in a sweep, which writes no events",
            "true",
            "Leave it out, or write --set tensorboard=false.",
        )
    check_unlike(arms, argument="--arm", what="arm")
    named = [Arm(each) for each in arms or [run.optimizer.name]]
    ranges = dict.fromkeys(named, parse_range(lr, argument="--lr"))
    check_unlike([each.rpartition("=")[0] for each in arm_lr], argument="--arm-lr", what="arm")
    for text in arm_lr:
        arm, _, rates = text.rpartition("=")
        if Arm(arm) not in ranges:
            raise ArgumentError(
                "--arm-lr",
                f"must begin with one of {', '.join(map(str, named))} and =",
                repr(text),
                "Write it as adamw=2^-14..2^-5, the arm as after --arm.",
            )
        ranges[Arm(arm)] = parse_range(rates, argument="--arm-lr")
    sizes = parse_sizes(over, most=max_runs)
    return Plan(run, sizes, ranges, cast("Grid", grid), seeds, max_runs)


def _run_points(
    console: Console, plan: Plan, kept: Results, jobs: int, prepared: Prepared
) -> list[Result]:
    from modular_manifolds.training.sweep import run_points

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("sweep", total=None)
        seen = 0

        def watch(result: Result, left: int) -> None:
            nonlocal seen
            seen += 1
            bar.update(task, completed=seen, total=seen + left)
            console.print(f"{result.point} | {_outcome_text(result)}", soft_wrap=True)

        try:
            return run_points(plan, kept, jobs=jobs, watch=watch, prepared=prepared)
        except KeyboardInterrupt:
            text = f"Stopped after {seen} runs, which are kept. The same command goes on."
            console.print(text, soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None


def _outcome_text(result: Result) -> str:
    ended = result.outcome
    if ended.validation_loss is None:
        return f"diverged: {ended.diverged}"
    return f"loss {ended.validation_loss:.4f} | {ended.seconds:.1f} s"


def _show(console: Console, found: Sequence[Summary]) -> None:
    from modular_manifolds.cli.tables import show_table
    from modular_manifolds.training.sweep.plan import power

    rows: list[tuple[str, ...]] = []
    for summary in found:
        for curve in summary.curves:
            rate, loss, remark = "–", "–", "every run diverged"
            if curve.best is not None:
                rate, loss = power(curve.best), f"{curve.losses[curve.best]:.4f}"
                remark = f"at the edge, the {curve.edge} rate: widen --lr" if curve.edge else ""
            rows.append((str(summary.arm), str(curve.size), rate, loss, remark))
    show_table(console, "Best learning rates", ("arm", "size", "best", "loss", ""), rows)
    for summary in found:
        console.print(_sentence(summary), soft_wrap=True)


def _sentence(summary: Summary) -> str:
    if summary.rate_shift is None:
        return f"{summary.arm}: at one size at least every run diverged."
    if len(summary.curves) == 1:
        return f"{summary.arm}: one size, so nothing is compared."
    moved = "1 notch" if summary.rate_shift == 1 else f"{summary.rate_shift} notches"
    text = f"{summary.arm}: the best rate moves by {moved} of √2 over the sizes"
    first, last = summary.curves[0].size, summary.curves[-1].size
    if summary.transfer_cost is not None and math.isinf(summary.transfer_cost):
        text += f"; that of {first} diverges at {last}"
    elif summary.transfer_cost is not None:
        text += f"; that of {first} costs {summary.transfer_cost:.2f} % of the loss at {last}"
    if any(curve.edge for curve in summary.curves):
        text += "; a best rate at the edge of the grid makes this uncertain"
    return f"{text}."
