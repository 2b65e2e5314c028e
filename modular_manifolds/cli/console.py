"""The console that subcommands print to."""

from __future__ import annotations

from rich.console import Console


def open_console(*, quiet: bool = False) -> Console:
    """A console on stdout that prints names and paths unchanged, without markup or emoji; a quiet one prints nothing."""
    return Console(markup=False, emoji=False, highlight=False, quiet=quiet)
