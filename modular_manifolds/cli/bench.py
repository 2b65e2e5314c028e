"""`modular-manifolds bench`: hands over to the benchmarks, which come with the repository and not with the package."""

from __future__ import annotations

import sys
from pathlib import Path

import typer


def bench(context: typer.Context) -> None:
    """Measure steps, memory and drift beside torch's and geoopt's optimisers, in a checkout of the repository."""
    _find_benchmarks()
    from modular_manifolds_bench.command import app

    app(context.args, prog_name=context.command_path)


def _find_benchmarks() -> None:
    """Let the folder `benchmarks/` of the repository be imported from.

    Raises:
        ArgumentError: the package is installed without its repository.
    """
    from modular_manifolds.errors import ArgumentError

    folder = Path(__file__).parents[2] / "benchmarks"
    if not (folder / "modular_manifolds_bench").is_dir():
        raise ArgumentError(
            "bench",
            "must run in the repository, where the folder benchmarks/ is",
            f"no {folder}",
            "Clone the repository and run: pip install -e '.[bench]' && modular-manifolds bench",
        )
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
