"""The console that subcommands print to."""

from __future__ import annotations

from typing import Final

from rich.console import Console

PICTURES: Final = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}
"""A visible character for each control character, which a terminal would obey."""


def open_console(*, quiet: bool = False) -> Console:
    """A console on stdout that prints names and paths unchanged, without markup or emoji; a quiet one prints nothing."""
    return Console(markup=False, emoji=False, highlight=False, quiet=quiet)


def visible(text: str) -> str:
    """The text with a picture in the place of each control character but line feeds and tabs."""
    return text.translate(PICTURES)
