"""`modular-manifolds bench`: runs the benchmarks of the repository, which are not part of the package."""

from __future__ import annotations

import sys
from pathlib import Path

import typer


def bench(context: typer.Context) -> None:
    """Compare step time, memory and drift with optimisers of torch and geoopt, in a checkout of the repository."""
    _find_benchmarks()
    from modular_manifolds_bench.command import app

    code: object = app(context.args, prog_name=context.command_path, standalone_mode=False)
    raise typer.Exit(code if isinstance(code, int) else 0)


def _find_benchmarks() -> None:
    """Add the repository's folder `benchmarks/` to the import path.

    Raises:
        ArgumentError: the package is installed without its repository.
    """
    from modular_manifolds.errors import ArgumentError

    folder = Path(__file__).parents[2] / "benchmarks"
    if not (folder / "modular_manifolds_bench").is_dir():
        raise ArgumentError(
            "bench",
            "must run in the repository, which has the folder benchmarks/",
            f"no {folder}",
            "Clone the repository and run: pip install -e '.[bench]' && modular-manifolds bench",
        )
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
