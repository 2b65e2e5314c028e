"""`modular-manifolds lipschitz`: bounds of a trained or of a declared network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from modular_manifolds.composition.space import VectorNorm, check_vector_norm


def lipschitz(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="A run directory, or a run file (YAML or JSON); the default run without it."
        ),
    ] = None,
    input_norm: Annotated[
        str | None, typer.Option(help="rms, l2, l1 or linf; the network's own without it.")
    ] = None,
    output_norm: Annotated[
        str | None, typer.Option(help="rms, l2, l1 or linf; the network's own without it.")
    ] = None,
) -> None:
    """Print a network's Lipschitz bounds: declared, certified, and the largest slope found.

    Of a run directory, the network as its last checkpoint has it; of a run file, freshly drawn.
    """
    from modular_manifolds.certificates import lipschitz as bounds
    from modular_manifolds.cli.runs import asked_for
    from modular_manifolds.cli.tables import show_table
    from modular_manifolds.training.checkpoint import trained
    from modular_manifolds.training.run_directory import RunDirectory

    if run is not None and run.is_dir():
        directory = RunDirectory(run)
        directory.read_run()
        net = trained(directory)
    else:
        spec = asked_for(run, []).resolved()
        assert spec.network is not None
        net = spec.network.build_aside("network")
    report = bounds(
        net,
        input_norm=_norm(input_norm, "--input-norm"),
        output_norm=_norm(output_norm, "--output-norm"),
    )
    console = Console()
    show_table(console, "Lipschitz bounds", report.header(), report.cells())
    for line in str(report).splitlines()[2 + len(report.rows) :]:
        console.print(line)


def _norm(name: str | None, argument: str) -> VectorNorm | None:
    return None if name is None else check_vector_norm(name, argument=argument)
