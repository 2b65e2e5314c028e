"""Arguments that the parser of the command line refuses, or would take for something else, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import typer

from modular_manifolds.errors import ArgumentError

PARSER_ERROR: Final[Any] = typer.BadParameter.__mro__[2]
"""The base class of the parser's errors. Its module differs between the versions of typer."""


def check_not_empty(arguments: Sequence[str]) -> None:
    """Refuse empty arguments, which come from unset variables of a shell. An empty path would be the current folder.

    Raises:
        ArgumentError: an argument is empty.
    """
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if argument == "":
            before = arguments[place - 1] if place else ""
            name = before if before.startswith("-") else "an argument"
        elif not (name.startswith("--") and equals and value == ""):
            continue
        raise ArgumentError(
            name, "must not be empty", "''", "Write a value, or leave it out for its default."
        )


def refusal(error: Any) -> ArgumentError:
    """The parser's error as one of ours."""
    context = error.ctx
    command = context.command_path if context is not None else "modular-manifolds"
    remedy = f"Read {command} -h."
    option = getattr(error, "option_name", None)
    if option is None or not hasattr(error, "possibilities"):
        seen = f"this: {error.format_message()}".rstrip(".?")
        return ArgumentError(command, "must be called as its help says", seen, remedy)
    if error.possibilities:
        remedy = f"Similar: {', '.join(sorted(error.possibilities))}. {remedy}"
    if context is not None and any("--set" in each.opts for each in context.command.params):
        remedy += " Settings of a run are given as --set optimizer.lr=0.3."
    return ArgumentError(option, f"must be an option of {command}", "an unknown name", remedy)
