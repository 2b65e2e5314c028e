"""`modular-manifolds kernels`: what the machine code of the accelerator kernels is like, and what they must do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from modular_manifolds.cli.console import open_console
from modular_manifolds.errors import ArgumentError

if TYPE_CHECKING:
    from modular_manifolds_kernels.static import Row

WRONG = 1
"""Exit code where a check failed."""


def kernels(
    compile_now: Annotated[
        bool, typer.Option("--compile", help="Compile now and compare with the stored report.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Compile now and rewrite the stored report.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A kernel, dtype or target, as gram, bf16, sm_90; repeatable."
        ),
    ] = None,
    model: Annotated[
        bool, typer.Option("--model", help="Launches, operations and bytes beside torch's instead.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the rows as JSON too.")
    ] = None,
) -> None:
    """Print what the kernels' machine code is like, for four architectures, and check it.

    No accelerator is needed. Without --compile the stored report is checked, which takes no compiler.
    """
    from modular_manifolds_kernels import static

    console = open_console()
    if model:
        show_model(console)
        return
    asked = only or []
    before = static.stored()
    try:
        configurations = static.chosen(static.configurations(), asked)
        rows = static.chosen(before, asked)
    except ValueError as error:
        raise ArgumentError(
            "--only", "must name a kernel, dtype or target", repr(asked), f"{error}."
        ) from error
    if compile_now or update:
        with console.status("compiling") as status:
            rows = static.build(
                configurations, watch=lambda row: status.update(f"compiled {static.name(row)}")
            )
    if update:
        fresh = static.by_identity(rows)
        kept = [each for each in before if each.identity not in fresh]
        before = static.in_order([*kept, *rows])
        static.store(before)
    wrong, skipped = static.complaints(rows, before)
    show_rows(console, rows)
    if json is not None:
        static.store(rows, json)
    for line in (*skipped, *(f"wrong: {sentence}" for sentence in wrong)):
        console.print(line, soft_wrap=True)
    console.print(f"{len(rows)} rows, {len(wrong)} complaints")
    if wrong:
        raise typer.Exit(WRONG)


def show_rows(console: Console, rows: list[Row]) -> None:
    """A table a target."""
    from modular_manifolds_kernels import static

    for target in dict.fromkeys(each.target for each in rows):
        cells = [static.cells(each) for each in rows if each.target == target]
        _show(console, target, static.HEADER, cells, words=(0, 1, 2, 10))


def show_model(console: Console) -> None:
    """Launches, operations and bytes of the matrix sign and of a step, and the bars."""
    from modular_manifolds_kernels import model

    for title, header, cells in model.tables():
        _show(console, title, header, cells, words=(0,))


def _show(
    console: Console,
    title: str,
    header: Sequence[str],
    cells: Sequence[Sequence[str]],
    *,
    words: Collection[int],
) -> None:
    """A table that needs little room; columns of words to the left, of numbers to the right."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for i, what in enumerate(header):
        table.add_column(what, justify="left" if i in words else "right", overflow="fold")
    for row in cells:
        table.add_row(*row)
    console.print(table)
    console.print()
