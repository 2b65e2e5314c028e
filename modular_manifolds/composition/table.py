"""Plain text tables with aligned columns; numbers are right-aligned."""

from __future__ import annotations

from collections.abc import Sequence


def format_number(value: float | int | str | None) -> str:
    """A table cell as text: floats with four significant digits, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def format_table(header: Sequence[str], rows: Sequence[Sequence[float | int | str | None]]) -> str:
    """The rows under their header, one line each, columns two spaces apart."""
    cells = [[format_number(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    numeric = [
        bool(rows) and all(not isinstance(row[i], str) for row in rows) for i in range(len(header))
    ]

    def line(texts: Sequence[str]) -> str:
        columns = zip(texts, widths, numeric, strict=True)
        return "  ".join(t.rjust(w) if n else t.ljust(w) for t, w, n in columns).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, cells)])
