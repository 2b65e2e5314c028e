"""The command line: the app, and the conversion of errors to one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import Annotated, Final

import torch
import typer

from modular_manifolds.cli.bench import bench
from modular_manifolds.cli.budget import budget
from modular_manifolds.cli.lipschitz import lipschitz
from modular_manifolds.cli.options import INTERRUPTED
from modular_manifolds.cli.schema import schema
from modular_manifolds.cli.signals import terminated_as_interrupted
from modular_manifolds.cli.streams import lenient_streams
from modular_manifolds.cli.sweep import sweep
from modular_manifolds.cli.train import train
from modular_manifolds.cli.usage import PARSER_ERROR, check_not_empty, refusal
from modular_manifolds.errors import ModularManifoldsError

EPILOG = "Start with: modular-manifolds train"
CALLERS_MISTAKE = 2
"""The exit status for an error that the caller can mend."""
NO_MEMORY: Final = ("DefaultCPUAllocator", "out of memory")
"""Fragments of torch's out-of-memory errors."""

app = typer.Typer(
    name="modular-manifolds",
    help="Networks as composed modules, every weight on a manifold, one learning rate for all of them.",
    epilog=EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)
app.command()(sweep)
app.command()(budget)
app.command()(lipschitz)
app.command()(schema)
# The benchmarks parse all options, including `--help`.
app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)(bench)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"modular-manifolds {version('modular-manifolds')}")
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
    """Run the command line, and return the exit code. A caller's mistake prints one line on stderr and returns 2."""
    remaining = sys.argv[1:] if arguments is None else arguments
    # Removed here, so that it works before and after the subcommand's name.
    debug = "--debug" in remaining
    remaining = [each for each in remaining if each != "--debug"]
    with lenient_streams(), usual_torch(), terminated_as_interrupted():
        try:
            check_not_empty(remaining)
            code = _run(remaining or ["--help"])
            sys.stdout.flush()
        except (ModularManifoldsError, OSError, MemoryError, RuntimeError) as error:
            line = in_one_line(error)
            if debug or line is None:
                raise
            # In one piece: other processes may write to the same terminal.
            sys.stderr.write(f"error{_process()}: {line}\n")
            return CALLERS_MISTAKE
    return code


def _run(arguments: list[str]) -> int:
    try:
        code: object = app(arguments, standalone_mode=False)
    except PARSER_ERROR as error:
        raise refusal(error) from None
    except (typer.Abort, KeyboardInterrupt):
        # Older versions of typer abort after Ctrl-C.
        return INTERRUPTED
    except SystemExit as end:
        code = end.code
    return code if isinstance(code, int) else 0


def _process() -> str:
    """The number of this process, unless it is the first or the only one: the errors of all are seen together."""
    # Most commands end without an error, and need no training code.
    from modular_manifolds.training.launch import Launch

    rank = Launch.here().rank
    return f" in process {rank}" if rank else ""


def in_one_line(error: Exception) -> str | None:
    """One line for an error that the caller can fix; None for a bug in the code."""
    match error:
        case ModularManifoldsError():
            text = str(error)
        case OSError():
            name = error.filename or "a file or a stream"
            reason = error.strerror or str(error) or type(error).__name__
            text = f"{name} must be readable and writable, got {reason}. Make room, or check the path and its permissions."
        case _ if isinstance(error, MemoryError) or any(each in str(error) for each in NO_MEMORY):
            text = (
                "the memory of this machine must be large enough for the command, got an allocation error. "
                "Use a smaller network, batch or data set."
            )
        case _:
            return None
    return " ".join(text.split())


@contextmanager
def usual_torch() -> Iterator[None]:
    """A context with the torch defaults of a new process."""
    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":
            # Only if needed, because this context slows down every call of torch.
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.autocast("cpu", enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield
