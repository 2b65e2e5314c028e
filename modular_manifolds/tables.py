"""Tables of numbers, as plain text and as HTML: all that reports need to show themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final, TypeAlias

Cell: TypeAlias = float | int | str | None

TABLE_STYLE: Final = (
    "border-collapse: collapse; white-space: nowrap; font-variant-numeric: tabular-nums"
)
HEADER_STYLE: Final = "border-bottom: 1px solid currentColor"
CELL_STYLE: Final = "padding: 0.15em 0.7em"
"""Styles of an HTML table, of the row of its header and of its cells. They name no colour, so that the notebook's theme decides, light or dark."""


def format_number(value: Cell) -> str:
    """Four significant digits for floats; everything else as it is; None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


@dataclass(frozen=True)
class Table:
    """Rows under a header; columns of numbers stand to the right.

    Args:
        header: the names of the columns.
        rows: the cells, as many in each row as there are names.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether none of its cells is a text."""
        return [
            bool(self.rows) and not any(isinstance(row[i], str) for row in self.rows)
            for i in range(len(self.header))
        ]

    def texts(self) -> list[list[str]]:
        """The rows as they are shown."""
        return [[format_number(cell) for cell in row] for row in self.rows]

    def __str__(self) -> str:
        """A line each row, columns two spaces apart."""
        rows, numeric = self.texts(), self.numeric
        widths = [max(map(len, column)) for column in zip(self.header, *rows, strict=True)]

        def line(texts: Sequence[str]) -> str:
            columns = zip(texts, widths, numeric, strict=True)
            return "  ".join(t.rjust(w) if n else t.ljust(w) for t, w, n in columns).rstrip()

        return "\n".join([line(self.header), line(["-" * w for w in widths]), *map(line, rows)])

    def to_html(self) -> str:
        """The same cells as an HTML table."""
        sides = ["right" if numeric else "left" for numeric in self.numeric]

        def cells(texts: Sequence[str], tag: str) -> str:
            return "".join(
                f'<{tag} style="{CELL_STYLE}; text-align: {side}">{escape(t, quote=False)}</{tag}>'
                for t, side in zip(texts, sides, strict=True)
            )

        return "\n".join(
            [
                f'<table style="{TABLE_STYLE}">',
                f'<thead><tr style="{HEADER_STYLE}">{cells(self.header, "th")}</tr></thead>',
                "<tbody>",
                *(f"<tr>{cells(texts, 'td')}</tr>" for texts in self.texts()),
                "</tbody>",
                "</table>",
            ]
        )


class Printable(ABC):
    """A result that `print` shows as tables and sentences, and a notebook as the same tables in HTML."""

    @abstractmethod
    def printed(self) -> list[Table | str]:
        """The tables and sentences, from top to bottom."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.printed()))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """The printed text for IPython, in a terminal and beside the HTML of a notebook."""
        return {"text/plain": str(self)}

    def _repr_html_(self) -> str:
        """The result for a notebook; IPython calls this for the last line of a cell."""
        shown = [
            each.to_html() if isinstance(each, Table) else f"<div>{escape(each, quote=False)}</div>"
            for each in self.printed()
        ]
        return "\n".join(['<div style="overflow-x: auto">', *shown, "</div>"])
