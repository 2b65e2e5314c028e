"""`modular-manifolds sweep`: the best learning rate at every size, and whether it moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from modular_manifolds.errors import ArgumentError

if TYPE_CHECKING:
    from modular_manifolds.training.sweep import Plan, Results
    from modular_manifolds.training.sweep.results import Result
    from modular_manifolds.training.sweep.summary import Summary

INTERRUPTED: Final = 130
RATES: Final = "2^-6..2^1"


def sweep(
    run: Annotated[
        Path | None, typer.Argument(help="A run file (YAML or JSON); the default run without it.")
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V,V,…",
            help="The sizes, the smallest first, as model.width=32,64; repeatable: all combinations.",
        ),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTIMIZER[,KEY=VALUE…]",
            help="What is compared, as 'adamw,optimizer.weight_decay=0.1'; repeatable. "
            "The run's own optimizer without it.",
        ),
    ] = None,
    lr: Annotated[str, typer.Option(metavar="LOW..HIGH", help="Learning rates.")] = RATES,
    arm_lr: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARM=LOW..HIGH", help="Learning rates of one arm, as adamw=2^-14..2^-5; repeatable."
        ),
    ] = None,
    grid: Annotated[
        str,
        typer.Option(
            metavar="full|coarse|refined",
            help="Rates √2 apart; 2 apart; or 2 apart, then √2 to either side of the best.",
        ),
    ] = "full",
    seeds: Annotated[int, typer.Option(min=1, help="Runs at each rate.")] = 1,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change one value of the run, as steps=120; repeatable."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The sweep's folder; one that is there goes on.")
    ] = Path("sweep"),
    jobs: Annotated[int, typer.Option(min=1, help="Processes that run side by side.")] = 1,
) -> None:
    """Train at every size, by every arm, at every learning rate, and say which rate is best.

    Every run that is done is kept, so the same command goes on with a sweep that was stopped, and a wider
    range or one more arm runs only what is new.

    Example:

      modular-manifolds sweep --set data.name=cifar10 --set data.path=DIR --set model.name=residual-mlp
      --set steps=120 --over model.width=32,64,128 --arm steepest-descent --arm adamw
      --arm-lr adamw=2^-12..2^-5 -o transfer
    """
    from modular_manifolds.cli.runs import asked_for
    from modular_manifolds.training.environment import Environment
    from modular_manifolds.training.sweep import Results, summaries
    from modular_manifolds.training.sweep.figure import transfer
    from modular_manifolds.training.run_directory import write_whole

    console = Console()
    plan = _plan(
        asked_for(run, assignments or []), over or (), arm or (), lr, arm_lr or (), grid, seeds
    )
    kept = Results(out)
    kept.open(plan.run)
    results = _conducted(console, plan, kept, jobs)
    kept.write(results, Environment.here(threads=plan.run.threads or 0, device=plan.run.device))
    found = summaries(results, list(plan.ranges), plan.sizes)
    write_whole(kept.figure, transfer(found))
    _show(console, found)
    console.print(f"results   {kept.json}", soft_wrap=True, highlight=False)
    console.print(f"picture   {kept.figure}", soft_wrap=True, highlight=False)
