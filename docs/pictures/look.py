"""One look for all pictures: a white ground that is readable on light and dark pages, letters for a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK: Final = "#263238"
GREY: Final = "#78909c"
PALE: Final = "#cfd8dc"
BLUE: Final = "#1565c0"
ORANGE: Final = "#e65100"
GREEN: Final = "#2e7d32"


def paper(width: float, height: float) -> Figure:
    """An empty figure; a phone shows 5 inches of it at full size."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasSVG(figure)
    return figure


def save(figure: Figure, path: Path, *, description: str) -> None:
    """Write the figure with letters as outlines, so that it looks alike everywhere.

    Args:
        figure: the picture.
        path: the SVG file.
        description: the content in words, stored in the file. A test compares it with that of the picture drawn anew.
    """
    figure.savefig(path, format="svg", metadata={"Date": None, "Description": description})
