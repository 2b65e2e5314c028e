"""`modular-manifolds budget`: the learning-rate split, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def budget(
    run: Annotated[
        Path | None, typer.Argument(help="A run file (YAML or JSON); the default run without it.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one value, as optimizer.lr=0.3."),
    ] = None,
) -> None:
    """Print how a run's learning rate is split over its weights."""
    from modular_manifolds.cli.runs import asked_for
    from modular_manifolds.cli.tables import show_table
    from modular_manifolds.nn import budget as split

    spec = asked_for(run, assignments or []).resolved()
    assert spec.network is not None
    found = split(spec.network.build_aside("network"), spec.optimizer.lr)
    console = Console()
    show_table(console, "Learning-rate split", found.header(), found.cells())
    console.print(str(found).splitlines()[-1])
