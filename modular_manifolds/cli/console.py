"""The console that subcommands print to."""

from __future__ import annotations

from rich.console import Console


def open_console() -> Console:
    """A console on stdout that prints names and paths unchanged, without markup or emoji."""
    return Console(markup=False, emoji=False, highlight=False)
