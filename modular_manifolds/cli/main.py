"""The command line: one app, one place where errors become a line and an exit code."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from modular_manifolds.cli.bench import bench
from modular_manifolds.cli.budget import budget
from modular_manifolds.cli.kernels import kernels
from modular_manifolds.cli.lipschitz import lipschitz
from modular_manifolds.cli.schema import schema
from modular_manifolds.cli.sweep import sweep
from modular_manifolds.cli.train import train
from modular_manifolds.errors import ModularManifoldsError

EPILOG = "Start with: modular-manifolds train"
CALLERS_MISTAKE = 2

app = typer.Typer(
    name="modular-manifolds",
    help="Networks as composed modules, every weight on a manifold, one learning rate for all of them.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)
app.command()(sweep)
app.command()(budget)
app.command()(lipschitz)
app.command()(schema)
app.command()(bench)
app.command()(kernels)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"modular-manifolds {version('modular-manifolds')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Networks as composed modules, every weight on a manifold, one learning rate for all of them."""
    del debug, show_version


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code. A caller's mistake is one line on stderr and code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    # Taken out here, so that it works before and after the subcommand's name.
    debug = "--debug" in given
    given = [each for each in given if each != "--debug"]
    try:
        app(given)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except ModularManifoldsError as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return CALLERS_MISTAKE
    return 0
