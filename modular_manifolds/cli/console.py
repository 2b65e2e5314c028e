"""The console that subcommands print to."""

from __future__ import annotations

from rich.console import Console


def open_console() -> Console:
    """A console on stdout that prints names and paths as they are: brackets are no markup, colons no emoji."""
    return Console(markup=False, emoji=False, highlight=False)
