"""`modular-manifolds budget`: the learning-rate split, without training."""

from __future__ import annotations

from modular_manifolds.cli.console import open_console
from modular_manifolds.cli.options import Assignments, RunFile


def budget(
    run: RunFile = None,
    assignments: Assignments = None,
) -> None:
    """Print the split of a run's learning rate over its weights."""
    from modular_manifolds.cli.runs import read_run_spec
    from modular_manifolds.cli.tables import show_table
    from modular_manifolds.nn import budget as split

    spec = read_run_spec(run, assignments or []).resolved()
    assert spec.network is not None
    found = split(spec.network.build_without_weights("network"), spec.optimizer.lr)
    console = open_console()
    show_table(console, "Learning-rate split", found.header(), found.cells())
    for line in found.printed()[1:]:
        console.print(line, soft_wrap=True)
