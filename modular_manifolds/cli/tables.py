"""Tables on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from modular_manifolds.tables import format_number


def show_table(
    console: Console,
    title: str,
    header: Sequence[str],
    cells: Sequence[Sequence[float | str | None]],
) -> None:
    """Print a table with right-aligned numbers of four digits; None is a dash. Rows are never wrapped."""
    table = Table(title=title, title_justify="left", title_style="bold", show_edge=False)
    for i, name in enumerate(header):
        numeric = bool(cells) and not isinstance(cells[0][i], str)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in cells:
        table.add_row(*(format_number(cell) for cell in row))
    wide = console.options.update(width=sys.maxsize)
    table.width = Measurement.get(console, wide, table).maximum
    console.print(table, crop=False)
    console.print()
